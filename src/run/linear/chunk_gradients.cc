#include "run/linear/chunk_gradients.h"

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "run/linear/vector_math.h"

namespace evenspan::run::chunked {
namespace {

// One matrix of a reader; null where there is none.
template <class W>
struct ReaderRows {
  const W *rows = nullptr, *grad_rows = nullptr, *grad_decayed = nullptr, *grad_itself = nullptr, *unfactored = nullptr;
};

// One matrix of the rest; null where there is none.
template <class W>
struct ChunkRows {
  const W *from_begin = nullptr, *to_end = nullptr, *up = nullptr, *down = nullptr;
  const W *key = nullptr, *grad_key = nullptr, *grad_end = nullptr, *key_unfactored = nullptr;
  const W *grad_written = nullptr, *grad_sums = nullptr, *grad_whole = nullptr;
  ReaderRows<W> query, erase;
  int64_t rows = 0, key_dim = 0, value_dim = 0, width = 0;
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
  int64_t value_ahead = 0, query_ahead = 0, key_ahead = 0, grad_value_ahead = 0, gate_ahead = 0;
};

// out = the gradient of the reader's row r; `gate` gets what it adds to that of the sum g_r.
template <class W>
[[gnu::always_inline]] inline void reader_row(const ChunkRows<W>& c, const ReaderRows<W>& reader, int64_t r,
                                              W* __restrict gate, W* __restrict out) {
  const int64_t dim = c.key_dim, at = r * dim;
  const W *rows = reader.rows + at, *grad = reader.grad_rows + at;
  if (c.kind == GateKind::none) {
    std::copy(grad, grad + dim, out);
  } else if (c.kind == GateKind::scalar) {
    const W decay = c.from_begin[r];
    const W* early = reader.grad_decayed + at;
    for (int64_t d = 0; d < dim; ++d) out[d] = grad[d] + decay * early[d];
    *gate += decay * dot(rows, early, dim);
  } else {
    const W* up = c.up + at;
    const auto add = [&](auto&& with_unfactored) {
      for (int64_t d = 0; d < dim; ++d) {
        const W sum = with_unfactored(up[d] * grad[d], d);
        gate[d] += rows[d] * sum;
        out[d] = sum;
      }
    };
    reader.unfactored == nullptr ? add([](W x, int64_t) { return x; })
                                 : add([&](W x, int64_t d) { return x + reader.unfactored[at + d]; });
  }
}

// out = the gradient of key r; `gate` gets what the pairs add to that of the sum g_r.
template <class W>
[[gnu::always_inline]] inline void key_row(const ChunkRows<W>& c, int64_t r, W* __restrict gate, W* __restrict out) {
  const int64_t dim = c.key_dim, at = r * dim;
  const W *key = c.key + at, *grad = c.grad_key + at;
  if (c.kind == GateKind::none) {
    std::copy(grad, grad + dim, out);
  } else if (c.kind == GateKind::scalar) {
    const W decay = c.to_end[r];
    const W* end = c.grad_end + at;
    for (int64_t d = 0; d < dim; ++d) out[d] = grad[d] + decay * end[d];
  } else {
    const W *down = c.down + at, *end = c.grad_end + at;
    const auto add = [&](auto&& with_unfactored) {
      for (int64_t d = 0; d < dim; ++d) {
        const W by_pairs = with_unfactored(down[d] * grad[d], d);
        gate[d] -= key[d] * by_pairs;
        out[d] = by_pairs + down[d] * end[d];
      }
    };
    c.key_unfactored == nullptr ? add([](W x, int64_t) { return x; })
                                : add([&](W x, int64_t d) { return x + c.key_unfactored[at + d]; });
  }
}

// passing[r] = the part of a row's gate by way of the state that the chunk leaves: a sum over the rows before r, whose
// keys pass the gate, and not the whole less those from r on, which a strong gate would leave little of but rounding.
template <class W>
[[gnu::always_inline]] inline void pass_end(const ChunkRows<W>& c, W* __restrict passing) {
  const int64_t dim = c.key_dim;
  std::copy(c.grad_whole, c.grad_whole + c.width, passing);
  for (int64_t r = 0; r + 1 < c.rows; ++r) {
    const W *key = c.key + r * dim, *end = c.grad_end + r * dim;
    const W* __restrict before = passing + r * c.width;
    W* __restrict after = passing + (r + 1) * c.width;
    if (c.kind == GateKind::scalar) {
      *after = *before + c.to_end[r] * dot(key, end, dim);
    } else {
      const W* down = c.down + r * dim;
      for (int64_t d = 0; d < dim; ++d) after[d] = before[d] + key[d] * (down[d] * end[d]);
    }
  }
}

template <class T, class W>
[[gnu::always_inline]] inline void store(const W* from, int64_t dim, W factor, T* to, int64_t ahead) {
  prefetch_write(to + ahead, dim);
  for (int64_t d = 0; d < dim; ++d) to[d] = static_cast<T>(factor * from[d]);
}

template <class T, class W>
[[gnu::always_inline]] inline void write_row(const ChunkRows<W>& c, const HeadRows<T, W>& h, int64_t r, W* gate,
                                             W* grad, W* grad_key) {
  const int64_t dim = c.key_dim;
  const W* key = c.key + r * dim;
  const W* written = c.grad_written + r * c.value_dim;
  key_row(c, r, gate, grad_key);
  reader_row(c, c.query, r, gate, grad);
  if (c.kind == GateKind::diagonal) {
    const W itself = c.query.grad_itself[r];
    const W* query = c.query.rows + r * dim;
    for (int64_t d = 0; d < dim; ++d) grad[d] += itself * key[d];
    for (int64_t d = 0; d < dim; ++d) grad_key[d] += itself * query[d];
  }
  store(grad, dim, c.scale, h.grad_query + r * h.query_stride, h.query_ahead);
  W written_factor = 1;
  if (h.beta != nullptr) {
    written_factor = h.beta[r * h.beta_stride];
    prefetch(h.value + r * h.value_stride + h.value_ahead, c.value_dim);
    reader_row(c, c.erase, r, gate, grad);
    for (int64_t d = 0; d < dim; ++d) grad_key[d] -= written_factor * grad[d];
    const W of_value = dot(h.value + r * h.value_stride, written, c.value_dim);
    h.grad_beta[r * h.beta_stride] = of_value - dot(key, grad, dim);
  }
  store(grad_key, dim, W(1), h.grad_key + r * h.key_stride, h.key_ahead);
  store(written, c.value_dim, written_factor, h.grad_value + r * h.grad_value_stride, h.grad_value_ahead);
}

template <class W>
struct Scratch {
  Scratch(int64_t rows, int64_t dim, int64_t width) : gate(width), passing(rows * width), grad(dim), grad_key(dim) {}
  std::vector<W> gate, passing, grad, grad_key;
};

// From the last row to the first: a row's gate is in the sums of that row and of all after it. Returns the sum of a
// fixed gate's gradients over the rows; otherwise 0.
template <class T, class W>
EVENSPAN_VECTOR_CLONES W write_chunk(const ChunkRows<W>& c, const HeadRows<T, W>& h, Scratch<W>* scratch) {
  W *gate = scratch->gate.data(), *grad = scratch->grad.data(), *grad_key = scratch->grad_key.data();
  W* passing = scratch->passing.data();
  std::fill(gate, gate + c.width, W(0));
  if (c.width > 0) pass_end(c, passing);
  W total = 0;
  for (int64_t r = c.rows; r-- > 0;) {
    if (c.kind == GateKind::scalar) *gate += c.grad_sums[r];
    write_row(c, h, r, gate, grad, grad_key);
    if (h.grad_gate != nullptr) {
      const W* __restrict past = passing + r * c.width;
      W* to = h.grad_gate + r * h.gate_stride;
      prefetch_write(to + h.gate_ahead, c.width);
      for (int64_t d = 0; d < c.width; ++d) to[d] = gate[d] + past[d];
    } else if (c.width > 0) {
      total += *gate + passing[r];
    }
  }
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
                           matrix(r.grad_itself, n, rows), matrix(r.grad_unfactored, n, size)};
    };
    const auto chunk_of = [&](int64_t n, const RowRange& range) {
      const int64_t size = rows * key_dim;
      ChunkRows<W> c;
      c.from_begin = matrix(decays.from_begin, n, rows);
      c.to_end = matrix(decays.to_end, n, rows);
      c.up = matrix(decays.up, n, size);
      c.down = matrix(decays.down, n, size);
      c.key = matrix(key, n, size);
      c.grad_key = matrix(gradients.key, n, size);
      c.grad_end = matrix(gradients.key_end, n, size);
      c.key_unfactored = matrix(gradients.key_unfactored, n, size);
      c.grad_written = matrix(gradients.written, n, rows * value_dim);
      c.grad_sums = matrix(gradients.sums, n, rows);
      c.grad_whole = matrix(gradients.whole, n, width);
      c.query = reader_of(readers[0], n);
      if (readers.size() > 1) c.erase = reader_of(readers[1], n);
      c.rows = range.size();
      c.key_dim = key_dim;
      c.value_dim = value_dim;
      c.width = width;
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
      h.value_ahead = ahead(operands.value, head, rows);
      h.grad_query = in(results.query);
      h.query_stride = results.query.stride(0);
      h.query_ahead = ahead(results.query, head, rows);
      h.grad_key = in(results.key);
      h.key_stride = results.key.stride(0);
      h.key_ahead = ahead(results.key, head, rows);
      h.grad_value = in(results.value);
      h.grad_value_stride = results.value.stride(0);
      h.grad_value_ahead = ahead(results.value, head, rows);
      if (operands.beta.defined()) {
        h.beta = operands.beta.const_data_ptr<W>() + row * heads + head;
        h.grad_beta = results.beta.mutable_data_ptr<W>() + row * heads + head;
        h.beta_stride = heads;
      }
      if (decays.kind != GateKind::none && !fixed) {
        h.grad_gate = results.gate.mutable_data_ptr<W>() + (row * heads + head) * width;
        h.gate_stride = heads * width;
        h.gate_ahead = ahead(results.gate, head, rows);
      }
      return h;
    };
    at::parallel_for(0, key.size(0), grain(rows * key_dim), [&](int64_t begin, int64_t end) {
      Scratch<W> scratch(rows, key_dim, width);
      for (int64_t n = begin; n < end; ++n) {
        const RowRange& range = chunks[static_cast<size_t>(n / heads)];
        const W total = write_chunk(chunk_of(n, range), head_of(range.begin, n % heads), &scratch);
        if (fixed) gradients.fixed_gate.mutable_data_ptr<W>()[n] = total;
      }
    });
  });
}

}  // namespace evenspan::run::chunked
