#include "run/linear/chunk_gradients.h"

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "run/linear/vector_math.h"

namespace evenspan::run::chunked {
namespace {

// One matrix of a reader.
template <class W>
struct ReaderRows {
  const W *rows = nullptr, *grad_rows = nullptr, *grad_decayed = nullptr, *grad_itself = nullptr;
};

// One matrix of the rest; null where there is none.
template <class W>
struct ChunkRows {
  const W *from_begin = nullptr, *to_end = nullptr, *whole = nullptr;
  const W *up = nullptr, *down = nullptr, *begin = nullptr, *end = nullptr;
  bool factored = true;
  const W *key = nullptr, *grad_key = nullptr, *grad_late = nullptr, *grad_written = nullptr, *grad_sums = nullptr;
  const W *state = nullptr, *grad_state = nullptr;
  ReaderRows<W> query, erase;
  int64_t rows = 0, key_dim = 0, value_dim = 0;
  GateKind kind = GateKind::none;
  W scale = 1;
};

// The operands' and results' rows of one head; `*_stride` from row to row.
template <class T, class W>
struct HeadRows {
  const T* value = nullptr;
  const W* beta = nullptr;
  T *grad_query = nullptr, *grad_key = nullptr, *grad_value = nullptr;
  W *grad_gate = nullptr, *grad_beta = nullptr;
  int64_t value_stride = 0, query_stride = 0, key_stride = 0, grad_value_stride = 0, gate_stride = 0, beta_stride = 0;
};

// Gradients of the gates of a chunk: of each row's own sum, and of the decay from it to the chunk's end.
template <class W>
struct GateSums {
  W *own, *later;
};

// out = the gradient of the reader's row r.
template <class W>
[[gnu::always_inline]] inline void reader_row(const ChunkRows<W>& c, const ReaderRows<W>& reader, int64_t r,
                                              const GateSums<W>& sums, W* out) {
  const int64_t dim = c.key_dim, at = r * dim;
  if (c.kind == GateKind::none) {
    std::copy(reader.grad_rows + at, reader.grad_rows + at + dim, out);
  } else if (c.kind == GateKind::scalar) {
    const W decay = c.from_begin[r];
    for (int64_t d = 0; d < dim; ++d) out[d] = reader.grad_rows[at + d] + decay * reader.grad_decayed[at + d];
    sums.own[r] += decay * dot(reader.rows + at, reader.grad_decayed + at, dim);
  } else {
    const W *up = c.up + at, *pairs = reader.grad_rows + at, *early = reader.grad_decayed + at;
    if (c.factored) {
      for (int64_t d = 0; d < dim; ++d) out[d] = up[d] * (pairs[d] + c.begin[d] * early[d]);
    } else {
      for (int64_t d = 0; d < dim; ++d) out[d] = pairs[d] + up[d] * early[d];
    }
    W* own = sums.own + at;
    for (int64_t d = 0; d < dim; ++d) own[d] += reader.rows[at + d] * out[d];
  }
}

template <class W>
[[gnu::always_inline]] inline void key_row(const ChunkRows<W>& c, int64_t r, const GateSums<W>& sums, W* out) {
  const int64_t dim = c.key_dim, at = r * dim;
  if (c.kind == GateKind::none) {
    std::copy(c.grad_key + at, c.grad_key + at + dim, out);
  } else if (c.kind == GateKind::scalar) {
    const W decay = c.to_end[r];
    for (int64_t d = 0; d < dim; ++d) out[d] = c.grad_key[at + d] + decay * c.grad_late[at + d];
    sums.later[r] = decay * dot(c.key + at, c.grad_late + at, dim);
  } else {
    // Loops over few arrays each: over many, the compiler gives up on telling them apart.
    const W *down = c.down + at, *key = c.key + at, *pairs = c.grad_key + at, *late = c.grad_late + at;
    W *own = sums.own + at, *later = sums.later + at;
    std::copy(pairs, pairs + dim, out);
    for (int64_t d = 0; c.factored && d < dim; ++d) out[d] *= down[d];
    for (int64_t d = 0; d < dim; ++d) own[d] -= key[d] * out[d];
    for (int64_t d = 0; d < dim; ++d) later[d] = down[d] * c.end[d] * late[d];
    for (int64_t d = 0; d < dim; ++d) out[d] += later[d];
    for (int64_t d = 0; d < dim; ++d) later[d] *= key[d];
  }
}

template <class T, class W>
[[gnu::always_inline]] inline void store(const W* from, int64_t dim, W factor, T* to) {
  for (int64_t d = 0; d < dim; ++d) to[d] = static_cast<T>(factor * from[d]);
}

template <class T, class W>
[[gnu::always_inline]] inline void write_row(const ChunkRows<W>& c, const HeadRows<T, W>& h, int64_t r,
                                             const GateSums<W>& sums, W* grad, W* grad_key) {
  const int64_t dim = c.key_dim;
  const W* key = c.key + r * dim;
  const W* written = c.grad_written + r * c.value_dim;
  key_row(c, r, sums, grad_key);
  reader_row(c, c.query, r, sums, grad);
  if (c.kind == GateKind::diagonal) {
    const W itself = c.query.grad_itself[r];
    for (int64_t d = 0; d < dim; ++d) grad[d] += itself * key[d];
    for (int64_t d = 0; d < dim; ++d) grad_key[d] += itself * c.query.rows[r * dim + d];
  }
  store(grad, dim, c.scale, h.grad_query + r * h.query_stride);
  W written_factor = 1;
  if (h.beta != nullptr) {
    written_factor = h.beta[r * h.beta_stride];
    prefetch(h.value + r * h.value_stride + c.value_dim, c.value_dim);
    reader_row(c, c.erase, r, sums, grad);
    for (int64_t d = 0; d < dim; ++d) grad_key[d] -= written_factor * grad[d];
    const W of_value = dot(h.value + r * h.value_stride, written, c.value_dim);
    h.grad_beta[r * h.beta_stride] = of_value - dot(key, grad, dim);
  }
  store(grad_key, dim, W(1), h.grad_key + r * h.key_stride);
  store(written, c.value_dim, written_factor, h.grad_value + r * h.grad_value_stride);
}

// Row t's gate is in the sums of rows from t on, in the decays to the end of rows before t, and in that of the state.
template <class W>
[[gnu::always_inline]] inline void write_gates(const ChunkRows<W>& c, const GateSums<W>& sums, W* state, W* to,
                                               int64_t stride) {
  const int64_t width = c.kind == GateKind::scalar ? 1 : c.key_dim;
  std::fill(state, state + width, W(0));
  for (int64_t d = 0; d < c.key_dim; ++d) {
    const int64_t at = width == 1 ? 0 : d;
    state[at] += c.whole[at] * dot(c.state + d * c.value_dim, c.grad_state + d * c.value_dim, c.value_dim);
  }
  for (int64_t r = c.rows - 1; r-- > 0;) {
    for (int64_t d = 0; d < width; ++d) sums.own[r * width + d] += sums.own[(r + 1) * width + d];
  }
  for (int64_t r = 0; r < c.rows; ++r) {
    for (int64_t d = 0; d < width; ++d) {
      to[r * stride + d] = sums.own[r * width + d] + state[d];
      state[d] += sums.later[r * width + d];
    }
  }
}

template <class W>
struct Scratch {
  Scratch(int64_t rows, int64_t dim, int64_t width)
      : own(rows * width), later(rows * width), gates(rows * width), grad(dim), grad_key(dim) {}
  std::vector<W> own, later, gates, grad, grad_key;
};

// Returns the sum of a fixed gate's gradients over the rows; otherwise 0.
template <class T, class W>
EVENSPAN_VECTOR_CLONES W write_chunk(const ChunkRows<W>& c, const HeadRows<T, W>& h, bool fixed, Scratch<W>* scratch) {
  const GateSums<W> sums{scratch->own.data(), scratch->later.data()};
  std::fill(scratch->own.begin(), scratch->own.end(), W(0));
  if (c.kind == GateKind::scalar) std::copy(c.grad_sums, c.grad_sums + c.rows, sums.own);
  for (int64_t r = 0; r < c.rows; ++r) write_row(c, h, r, sums, scratch->grad.data(), scratch->grad_key.data());
  if (c.kind == GateKind::none) return 0;
  W* gates = fixed ? scratch->gates.data() : h.grad_gate;
  write_gates(c, sums, scratch->grad.data(), gates, fixed ? 1 : h.gate_stride);
  W total = 0;
  for (int64_t r = 0; fixed && r < c.rows; ++r) total += gates[r];
  return total;
}

}  // namespace

void write_gradients(const LinearOperands& operands, const std::vector<RowRange>& chunks, const Decays& decays,
                     const std::vector<Reader>& readers, const at::Tensor& key, const BlockGradients& gradients,
                     const LinearGradients& results) {
  const int64_t heads = operands.key.size(1), rows = key.size(1), key_dim = key.size(2);
  const int64_t value_dim = gradients.written.size(2);
  const int64_t width = decays.kind == GateKind::none ? 0 : decays.whole.size(1);
  const bool fixed = gradients.fixed_gate.defined();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, operands.value.scalar_type(), "write_gradients", [&] {
    using W = at::opmath_type<scalar_t>;
    const auto matrix = [](const at::Tensor& t, int64_t n, int64_t size) {
      return t.defined() ? t.const_data_ptr<W>() + n * size : nullptr;
    };
    const auto reader_of = [&](const Reader& r, int64_t n) {
      const int64_t size = rows * key_dim;
      return ReaderRows<W>{matrix(r.rows, n, size), matrix(r.grad_rows, n, size), matrix(r.grad_decayed, n, size),
                           matrix(r.grad_itself, n, rows)};
    };
    const auto chunk_of = [&](int64_t n, const RowRange& range) {
      ChunkRows<W> c;
      c.from_begin = matrix(decays.from_begin, n, rows);
      c.to_end = matrix(decays.to_end, n, rows);
      c.begin = matrix(decays.begin, n, width);
      c.end = matrix(decays.end, n, width);
      c.factored = decays.kind != GateKind::diagonal || decays.factored.const_data_ptr<uint8_t>()[n] != 0;
      c.up = matrix(decays.up, n, rows * width);
      c.down = matrix(decays.down, n, rows * width);
      c.whole = matrix(decays.whole, n, width);
      c.key = matrix(key, n, rows * key_dim);
      c.grad_key = matrix(gradients.key, n, rows * key_dim);
      c.grad_late = matrix(gradients.key_late, n, rows * key_dim);
      c.grad_written = matrix(gradients.written, n, rows * value_dim);
      c.grad_sums = matrix(gradients.sums, n, rows);
      c.state = matrix(gradients.states, n, key_dim * value_dim);
      c.grad_state = matrix(gradients.grad_states, n, key_dim * value_dim);
      c.query = reader_of(readers[0], n);
      if (readers.size() > 1) c.erase = reader_of(readers[1], n);
      c.rows = range.size();
      c.key_dim = key_dim;
      c.value_dim = value_dim;
      c.kind = decays.kind;
      c.scale = static_cast<W>(operands.scale);
      return c;
    };
    const auto head_of = [&](int64_t row, int64_t head) {
      const auto in = [&](const at::Tensor& t) {
        return t.mutable_data_ptr<scalar_t>() + row * t.stride(0) + head * t.stride(1);
      };
      HeadRows<scalar_t, W> h;
      h.value =
          operands.value.const_data_ptr<scalar_t>() + row * operands.value.stride(0) + head * operands.value.stride(1);
      h.value_stride = operands.value.stride(0);
      h.grad_query = in(results.query);
      h.query_stride = results.query.stride(0);
      h.grad_key = in(results.key);
      h.key_stride = results.key.stride(0);
      h.grad_value = in(results.value);
      h.grad_value_stride = results.value.stride(0);
      if (operands.beta.defined()) {
        h.beta = operands.beta.const_data_ptr<W>() + row * heads + head;
        h.grad_beta = results.beta.mutable_data_ptr<W>() + row * heads + head;
        h.beta_stride = heads;
      }
      if (decays.kind != GateKind::none && !fixed) {
        h.grad_gate = results.gate.mutable_data_ptr<W>() + (row * heads + head) * width;
        h.gate_stride = heads * width;
      }
      return h;
    };
    at::parallel_for(0, key.size(0), grain(rows * key_dim), [&](int64_t begin, int64_t end) {
      Scratch<W> scratch(rows, key_dim, width);
      for (int64_t n = begin; n < end; ++n) {
        const RowRange& range = chunks[static_cast<size_t>(n / heads)];
        const W total = write_chunk(chunk_of(n, range), head_of(range.begin, n % heads), fixed, &scratch);
        if (fixed) gradients.fixed_gate.mutable_data_ptr<W>()[n] = total;
      }
    });
  });
}

}  // namespace evenspan::run::chunked
