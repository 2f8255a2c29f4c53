// One loop over the matrices of a block fills all that is made of the operands' rows, while a matrix's decays are at
// hand.
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "run/linear/chunk_loops.h"
#include "run/linear/vector_math.h"

namespace evenspan::run::chunked {
namespace {

template <class W>
[[gnu::always_inline]] inline W clamped(W gate) {
  constexpr W kLeast = kLeastGate;
  return gate < kLeast ? kLeast : gate;
}

// A gate's rows of one head in a chunk.
template <class W>
struct GateRows {
  const W* gate;
  int64_t stride, rows, padded_rows, dim;
};

template <class W>
EVENSPAN_VECTOR_CLONES void fill_scalar(const GateRows<W>& g, double* sums, W* from_begin, W* to_end, W* whole) {
  double sum = 0;
  for (int64_t r = 0; r < g.padded_rows; ++r) sums[r] = sum += r < g.rows ? clamped(g.gate[r * g.stride]) : W(0);
  for (int64_t r = 0; r < g.padded_rows; ++r) from_begin[r] = exp_of(static_cast<W>(sums[r]));
  for (int64_t r = 0; r < g.padded_rows; ++r) to_end[r] = exp_of(static_cast<W>(sum - sums[r]));
  *whole = exp_of(static_cast<W>(sum));
}

template <class W>
struct DiagonalDecays {
  W *up, *down, *begin, *end, *whole;
};

// to[d] = exp(a[d] + factor * b[d]).
template <class W>
[[gnu::always_inline]] inline void exp_sums(const W* __restrict a, const double* __restrict b, double factor,
                                            int64_t dim, W* __restrict to) {
  for (int64_t d = 0; d < dim; ++d) to[d] = exp_of(static_cast<W>(a[d] + factor * b[d]));
}

// In two loops: with the comparison beside the conversion, the compiler keeps a branch.
template <class W>
[[gnu::always_inline]] inline void clamp_gates(const W* __restrict gate, int64_t dim, W* __restrict to) {
  for (int64_t d = 0; d < dim; ++d) to[d] = clamped(gate[d]);
}
template <class W>
[[gnu::always_inline]] inline void add_gates(const W* __restrict gate, const double* __restrict before, int64_t dim,
                                             double* __restrict sums) {
  for (int64_t d = 0; d < dim; ++d) sums[d] = before[d] + gate[d];
}

// `sums`, [padded_rows, dim], gets those of the gates after the first row; `gates` is scratch, [2, dim]. Returns
// whether the decays factor.
template <class W>
EVENSPAN_VECTOR_CLONES bool fill_diagonal(const GateRows<W>& g, double* __restrict sums, W* __restrict gates,
                                          const DiagonalDecays<W>& to) {
  const int64_t dim = g.dim, rows = g.padded_rows;
  W *first = gates, *next = gates + dim;
  clamp_gates(g.gate, dim, first);
  prefetch(g.gate + dim, dim);
  std::fill(sums, sums + dim, 0.0);
  for (int64_t r = 1; r < g.rows; ++r) {
    clamp_gates(g.gate + r * g.stride, dim, next);
    add_gates(next, sums + (r - 1) * dim, dim, sums + r * dim);
    prefetch(g.gate + r * g.stride + dim, dim);
  }
  for (int64_t r = g.rows; r < rows; ++r) std::copy(sums + (r - 1) * dim, sums + r * dim, sums + r * dim);
  const double* last = sums + (rows - 1) * dim;
  double lowest = 0;
  for (int64_t d = 0; d < dim; ++d) lowest = last[d] < lowest ? last[d] : lowest;
  exp_sums(first, last, 1, dim, to.whole);
  W* __restrict up = to.up, * __restrict down = to.down;
  if (-lowest <= kFactorRange) {
    exp_sums(first, last, 0.5, dim, to.begin);
    for (int64_t r = 0; r < rows; ++r) {
      const double* sum = sums + r * dim;
      for (int64_t d = 0; d < dim; ++d) {
        const W own = exp_of(static_cast<W>(sum[d] - last[d] / 2));
        up[r * dim + d] = own;
        down[r * dim + d] = 1 / own;
      }
    }
    std::copy(up + (rows - 1) * dim, up + rows * dim, to.end);
    return true;
  }
  std::fill(to.begin, to.begin + dim, W(1));
  std::fill(to.end, to.end + dim, W(1));
  for (int64_t r = 0; r < rows; ++r) {
    const double* sum = sums + r * dim;
    for (int64_t d = 0; d < dim; ++d) {
      up[r * dim + d] = exp_of(static_cast<W>(first[d] + sum[d]));
      down[r * dim + d] = exp_of(static_cast<W>(last[d] - sum[d]));
    }
  }
  return false;
}

// One matrix of a gather.
template <class From, class W>
struct GatherRows {
  const From* from;
  int64_t stride, rows, dim;
  W factor;
  const W* beta;  // null: 1
  int64_t beta_stride;
  W *to, *near, *far;
  int64_t padded_rows, padded_dim;
  const W *row_decay, *near_decay, *side_decay;  // of `far` by row; of `near`, and from that of `far`
};

template <class From, class W>
EVENSPAN_VECTOR_CLONES void gather_rows(const GatherRows<From, W>& g) {
  const int64_t dim = g.dim, padded_dim = g.padded_dim;
  for (int64_t r = 0; r < g.rows; ++r) {
    const W f = g.beta != nullptr ? g.factor * g.beta[r * g.beta_stride] : g.factor;
    const From* from = g.from + r * g.stride;
    prefetch(from + dim, dim);
    W* __restrict row = g.to + r * padded_dim;
    for (int64_t d = 0; d < dim; ++d) row[d] = f * static_cast<W>(from[d]);
    std::fill(row + dim, row + padded_dim, W(0));
    if (g.near != nullptr) {
      W* __restrict near = g.near + r * dim, * __restrict far = g.far + r * dim;
      const W *near_decay = g.near_decay + r * dim, *side_decay = g.side_decay;
      for (int64_t d = 0; d < dim; ++d) {
        const W scaled = row[d] * near_decay[d];
        near[d] = scaled;
        far[d] = scaled * side_decay[d];
      }
    } else if (g.far != nullptr) {
      W* __restrict far = g.far + r * dim;
      const W decay = g.row_decay[r];
      for (int64_t d = 0; d < dim; ++d) far[d] = row[d] * decay;
    }
  }
  for (W* rest : {g.to, g.near, g.far}) {
    if (rest != nullptr) std::fill(rest + g.rows * padded_dim, rest + g.padded_rows * padded_dim, W(0));
  }
}

template <class From, class W>
GatherRows<From, W> rows_of(const Gather& gather, const Decays& decays, int64_t n, const RowRange& range,
                            int64_t head) {
  const at::Tensor& from = gather.from;
  const int64_t rows = gather.to.size(1), padded_dim = gather.to.size(2), size = rows * padded_dim;
  const auto to = [&](const at::Tensor& t) { return t.defined() ? t.mutable_data_ptr<W>() + n * size : nullptr; };
  const auto decay = [&](const at::Tensor& begin, const at::Tensor& end, int64_t each) -> const W* {
    const at::Tensor& own = gather.decay == Gather::Decay::from_begin ? begin : end;
    return own.defined() ? own.const_data_ptr<W>() + n * each : nullptr;
  };
  GatherRows<From, W> g{};
  g.from = from.const_data_ptr<From>() + range.begin * from.stride(0) + head * from.stride(1);
  g.stride = from.stride(0);
  g.rows = range.size();
  g.dim = from.size(2);
  g.factor = static_cast<W>(gather.factor);
  if (gather.beta.defined()) {
    g.beta_stride = gather.beta.size(1);
    g.beta = gather.beta.const_data_ptr<W>() + range.begin * g.beta_stride + head;
  }
  g.to = to(gather.to);
  g.padded_rows = rows;
  g.padded_dim = padded_dim;
  if (gather.decay == Gather::Decay::none) return g;
  g.near = to(gather.near);
  g.far = to(gather.far);
  g.row_decay = decay(decays.from_begin, decays.to_end, rows);
  g.near_decay = decay(decays.up, decays.down, size);
  g.side_decay = decay(decays.begin, decays.end, padded_dim);
  return g;
}

template <class W>
struct LoadScratch {
  std::vector<double> sums;
  std::vector<W> gates;
};

template <class W>
void fill_decays(const Decays& decays, int64_t n, const RowRange& range, int64_t head, int64_t heads,
                 LoadScratch<W>* scratch) {
  const auto at = [&](const at::Tensor& t) { return t.mutable_data_ptr<W>() + n * (t.numel() / t.size(0)); };
  const W* gate = decays.gate.const_data_ptr<W>();
  if (decays.kind == GateKind::scalar) {
    const int64_t stride = decays.gate.dim() == 1 ? 0 : heads, rows = decays.sums.size(1);
    fill_scalar(GateRows<W>{gate + range.begin * stride + head, stride, range.size(), rows, 1},
                decays.sums.mutable_data_ptr<double>() + n * rows, at(decays.from_begin), at(decays.to_end),
                at(decays.whole));
  } else {
    const int64_t rows = decays.up.size(1), dim = decays.up.size(2);
    scratch->sums.resize(rows * dim);
    scratch->gates.resize(2 * dim);
    decays.factored.mutable_data_ptr<uint8_t>()[n] = fill_diagonal(
        GateRows<W>{gate + (range.begin * heads + head) * dim, heads * dim, range.size(), rows, dim},
        scratch->sums.data(), scratch->gates.data(),
        DiagonalDecays<W>{at(decays.up), at(decays.down), at(decays.begin), at(decays.end), at(decays.whole)});
  }
}

}  // namespace

void load(const std::vector<RowRange>& chunks, int64_t heads, const Decays& decays,
          const std::vector<Gather>& gathers) {
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, gathers[0].from.scalar_type(), "load", [&] {
    using W = at::opmath_type<scalar_t>;
    const int64_t elements = gathers[0].to.size(1) * gathers[0].to.size(2);
    at::parallel_for(0, static_cast<int64_t>(chunks.size()) * heads, grain(elements), [&](int64_t begin, int64_t end) {
      LoadScratch<W> scratch;
      for (int64_t n = begin; n < end; ++n) {
        const RowRange& range = chunks[static_cast<size_t>(n / heads)];
        const int64_t head = n % heads;
        if (decays.kind != GateKind::none) fill_decays<W>(decays, n, range, head, heads, &scratch);
        for (const Gather& gather : gathers) gather_rows(rows_of<scalar_t, W>(gather, decays, n, range, head));
      }
    });
  });
}

}  // namespace evenspan::run::chunked
