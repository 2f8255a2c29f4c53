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
  int64_t stride, rows, padded_rows, dim, ahead;
};

template <class W>
EVENSPAN_VECTOR_CLONES void fill_scalar(const GateRows<W>& g, double* sums, W* from_begin, W* to_end, W* whole) {
  double sum = 0;
  for (int64_t r = 0; r < g.padded_rows; ++r) sums[r] = sum += r < g.rows ? clamped(g.gate[r * g.stride]) : W(0);
  for (int64_t r = 0; r < g.padded_rows; ++r) from_begin[r] = exp_of(static_cast<W>(sums[r]));
  for (int64_t r = 0; r < g.padded_rows; ++r) to_end[r] = exp_of(static_cast<W>(sum - sums[r]));
  *whole = exp_of(static_cast<W>(sum));
}

// One matrix's decays, as Decays names them; null where they are not made.
template <class W>
struct MatrixDecays {
  W *whole, *from_begin, *to_end, *up, *down, *end;
  bool factored;
};

template <class W>
[[gnu::always_inline]] inline void exp_row(const double* __restrict sums, int64_t dim, W* __restrict to) {
  for (int64_t d = 0; d < dim; ++d) to[d] = exp_of(static_cast<W>(sums[d]));
}
template <class W>
[[gnu::always_inline]] inline void exp_rest(const double* __restrict last, const double* __restrict sums, int64_t dim,
                                            W* __restrict to) {
  for (int64_t d = 0; d < dim; ++d) to[d] = exp_of(static_cast<W>(last[d] - sums[d]));
}
template <class W>
[[gnu::always_inline]] inline void invert(const W* __restrict from, int64_t dim, W* __restrict to) {
  for (int64_t d = 0; d < dim; ++d) to[d] = 1 / from[d];
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

// `sums` is scratch, [rows, dim], `gates` too, [dim].
template <class W>
EVENSPAN_VECTOR_CLONES void fill_diagonal(const GateRows<W>& g, double* sums, W* gates, MatrixDecays<W>* to) {
  const int64_t dim = g.dim;
  for (int64_t r = 0; r < g.rows; ++r) {
    clamp_gates(g.gate + r * g.stride, dim, gates);
    prefetch(g.gate + r * g.stride + g.ahead, dim);
    if (r == 0) {
      std::copy(gates, gates + dim, sums);
    } else {
      add_gates(gates, sums + (r - 1) * dim, dim, sums + r * dim);
    }
  }
  const double* last = sums + (g.rows - 1) * dim;
  double lowest = 0;
  for (int64_t d = 0; d < dim; ++d) lowest = last[d] < lowest ? last[d] : lowest;
  to->factored = to->up != nullptr && -lowest <= kFactorRange;
  exp_row(last, dim, to->whole);
  for (int64_t d = 0; d < dim; ++d) to->end[d] = to->factored ? to->whole[d] : W(1);
  for (int64_t r = 0; r < g.rows; ++r) {
    const int64_t at = r * dim;
    if (to->up != nullptr) exp_row(sums + at, dim, to->up + at);
    if (to->down == nullptr) continue;
    to->factored ? invert(to->up + at, dim, to->down + at) : exp_rest(last, sums + at, dim, to->down + at);
  }
}

// One matrix of a gather; null where something is not wanted.
template <class From, class W>
struct GatherRows {
  const From* from;
  int64_t stride, rows, dim, ahead;
  W factor;
  const W* beta;  // null: 1
  int64_t beta_stride;
  W *to, *near, *far;
  int64_t padded_rows, padded_dim;
  const W *row_decay, *near_decay, *near_to_far;  // `far` is the row times the first, or `near` times the last
};

template <class From, class W>
EVENSPAN_VECTOR_CLONES void gather_rows(const GatherRows<From, W>& g) {
  const int64_t dim = g.dim, padded_dim = g.padded_dim;
  for (int64_t r = 0; r < g.rows; ++r) {
    const W f = g.beta != nullptr ? g.factor * g.beta[r * g.beta_stride] : g.factor;
    const From* __restrict from = g.from + r * g.stride;
    prefetch(from + g.ahead, dim);
    if (g.to != nullptr) {
      W* __restrict row = g.to + r * padded_dim;
      for (int64_t d = 0; d < dim; ++d) row[d] = f * static_cast<W>(from[d]);
      std::fill(row + dim, row + padded_dim, W(0));
    }
    if (g.near != nullptr) {
      W* __restrict near = g.near + r * dim;
      const W* __restrict decay = g.near_decay + r * dim;
      for (int64_t d = 0; d < dim; ++d) near[d] = f * static_cast<W>(from[d]) * decay[d];
    }
    if (g.far == nullptr) continue;
    W* __restrict far = g.far + r * dim;
    if (g.near != nullptr) {
      const W* __restrict near = g.near + r * dim, * __restrict rest = g.near_to_far;
      for (int64_t d = 0; d < dim; ++d) far[d] = near[d] * rest[d];
    } else {
      const W* __restrict row = g.to + r * padded_dim;
      const W decay = g.row_decay[r];
      for (int64_t d = 0; d < dim; ++d) far[d] = row[d] * decay;
    }
  }
  for (W* rest : {g.to, g.near, g.far}) {
    if (rest != nullptr) std::fill(rest + g.rows * padded_dim, rest + g.padded_rows * padded_dim, W(0));
  }
}

template <class From, class W>
GatherRows<From, W> rows_of(const Gather& gather, const Decays& decays, const MatrixDecays<W>& own, int64_t n,
                            const RowRange& range, int64_t head) {
  const at::Tensor& from = gather.from;
  const int64_t rows = gather.to.size(1), padded_dim = gather.to.size(2), size = rows * padded_dim;
  const auto to = [&](const at::Tensor& t) { return t.defined() ? t.mutable_data_ptr<W>() + n * size : nullptr; };
  GatherRows<From, W> g{};
  g.from = from.const_data_ptr<From>() + range.begin * from.stride(0) + head * from.stride(1);
  g.stride = from.stride(0);
  g.rows = range.size();
  g.dim = from.size(2);
  g.ahead = ahead(from, head, rows);
  g.factor = static_cast<W>(gather.factor);
  if (gather.beta.defined()) {
    g.beta_stride = gather.beta.size(1);
    g.beta = gather.beta.const_data_ptr<W>() + range.begin * g.beta_stride + head;
  }
  g.padded_rows = rows;
  g.padded_dim = padded_dim;
  g.near = to(gather.near);
  g.far = to(gather.far);
  if (g.near == nullptr || decays.keeps || (own.up != nullptr && !own.factored)) g.to = to(gather.to);
  const bool from_begin = gather.decay == Gather::Decay::from_begin;
  g.row_decay = from_begin ? own.from_begin : own.to_end;
  g.near_decay = from_begin ? own.up : own.down;
  g.near_to_far = own.end;
  return g;
}

// Of one thread.
template <class W>
struct LoadScratch {
  std::vector<double> sums;
  std::vector<W> gates, up, down;
};

template <class W>
MatrixDecays<W> fill_decays(const Decays& decays, const std::vector<Gather>& gathers, int64_t n, const RowRange& range,
                            int64_t head, LoadScratch<W>* scratch) {
  MatrixDecays<W> own{};
  if (decays.kind == GateKind::none) return own;
  const auto at = [&](const at::Tensor& t) {
    return t.defined() ? t.mutable_data_ptr<W>() + n * (t.numel() / t.size(0)) : nullptr;
  };
  own = {
      at(decays.whole), at(decays.from_begin), at(decays.to_end), at(decays.up), at(decays.down), at(decays.end), true};
  const W* gate = decays.gate.const_data_ptr<W>();
  const int64_t heads = gathers[0].from.size(1), rows = gathers[0].to.size(1);
  if (decays.kind == GateKind::scalar) {
    const int64_t stride = decays.gate.dim() == 1 ? 0 : heads;
    fill_scalar(GateRows<W>{gate + range.begin * stride + head, stride, range.size(), rows, 1, 0},
                decays.sums.mutable_data_ptr<double>() + n * rows, own.from_begin, own.to_end, own.whole);
    return own;
  }
  const int64_t dim = decays.gate.size(2);
  const auto made = [&](Gather::Decay decay, W* kept, std::vector<W>* room) -> W* {
    if (std::none_of(gathers.begin(), gathers.end(), [&](const Gather& g) { return g.decay == decay; })) return nullptr;
    if (decays.keeps) return kept;
    room->resize(rows * dim);
    return room->data();
  };
  own.up = made(Gather::Decay::from_begin, own.up, &scratch->up);
  own.down = made(Gather::Decay::to_end, own.down, &scratch->down);
  scratch->sums.resize(rows * dim);
  scratch->gates.resize(dim);
  fill_diagonal(GateRows<W>{gate + (range.begin * heads + head) * dim, heads * dim, range.size(), rows, dim,
                            ahead(decays.gate, head, rows)},
                scratch->sums.data(), scratch->gates.data(), &own);
  decays.factored.mutable_data_ptr<uint8_t>()[n] = own.factored ? 1 : 0;
  return own;
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
        const MatrixDecays<W> own = fill_decays<W>(decays, gathers, n, range, head, &scratch);
        for (const Gather& gather : gathers) gather_rows(rows_of<scalar_t, W>(gather, decays, own, n, range, head));
      }
    });
  });
}

}  // namespace evenspan::run::chunked
