#include "run/linear/chunk_loops.h"

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "run/linear/vector_math.h"

namespace evenspan::run::chunked {
namespace {

template <class To, class W>
EVENSPAN_VECTOR_CLONES void scatter_rows(const W* from, int64_t rows, int64_t dim, bool add, To* to, int64_t to_stride,
                                         int64_t ahead) {
  for (int64_t r = 0; r < rows; ++r) {
    To* row = to + r * to_stride;
    prefetch_write(row + ahead, dim);
    if (add) {
      for (int64_t d = 0; d < dim; ++d) row[d] = static_cast<To>(static_cast<W>(row[d]) + from[r * dim + d]);
    } else {
      for (int64_t d = 0; d < dim; ++d) row[d] = static_cast<To>(from[r * dim + d]);
    }
  }
}

template <class W>
EVENSPAN_VECTOR_CLONES void invert_matrix(const W* pairs, int64_t rows, W* inverse) {
  std::fill(inverse, inverse + rows * rows, W(0));
  for (int64_t r = 0; r < rows; ++r) {
    W* row = inverse + r * rows;
    row[r] = 1;
    for (int64_t i = 0; i < r; ++i) {
      const W p = pairs[r * rows + i];
      const W* other = inverse + i * rows;
      for (int64_t d = 0; d <= i; ++d) row[d] += p * other[d];
    }
  }
}

// One matrix of states; `whole` and `end` null or for each row, or one for all if `width` is 1.
template <class W>
struct StateRows {
  W *stack, *state;
  const W *whole, *end;
  int64_t rows, dim, width;
  W whole_of(int64_t r) const { return whole == nullptr ? W(1) : whole[width == 1 ? 0 : r]; }
  W end_of(int64_t r) const { return end == nullptr ? W(1) : end[r]; }
};

template <class W>
EVENSPAN_VECTOR_CLONES void step_state(const StateRows<W>& s, Recurrence step) {
  for (int64_t r = 0; r < s.rows; ++r) {
    const W whole = s.whole_of(r), end = s.end_of(r);
    W* __restrict a = s.stack + r * s.dim, * __restrict b = s.state + r * s.dim;
    for (int64_t d = 0; d < s.dim; ++d) {
      const W stacked = a[d];
      a[d] = b[d];
      b[d] = step == Recurrence::increment ? whole * b[d] + end * stacked : whole * b[d];
    }
  }
}

template <class W>
EVENSPAN_VECTOR_CLONES void step_state_back(const StateRows<W>& s, const W* before, W* grad_whole) {
  if (grad_whole != nullptr) std::fill(grad_whole, grad_whole + s.width, W(0));
  for (int64_t r = 0; r < s.rows; ++r) {
    const W whole = s.whole_of(r), end = s.end_of(r);
    W* __restrict a = s.stack + r * s.dim, * __restrict b = s.state + r * s.dim;
    if (grad_whole != nullptr) grad_whole[s.width == 1 ? 0 : r] += whole * dot(before + r * s.dim, b, s.dim);
    for (int64_t d = 0; d < s.dim; ++d) {
      const W stacked = a[d];
      a[d] = end * b[d];
      b[d] = whole * b[d] + stacked;
    }
  }
}

// `each(rows of one matrix, n)` for all states.
template <class W, class Each>
void for_each_state(const Matrices& stack, const StateDecay& decay, const Matrices& state, Each&& each) {
  at::parallel_for(0, state.count, grain(state.rows * state.columns), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      each(StateRows<W>{stack.of<W>(n), state.of<W>(n), decay.whole.of<W>(n), decay.end.of<W>(n), state.rows,
                        state.columns, decay.whole.columns},
           n);
    }
  });
}

// For each matrix of a block: `each(n, rows of the operands, head)`.
template <class Each>
void for_each_matrix(const std::vector<RowRange>& chunks, int64_t heads, int64_t elements_each, Each&& each) {
  at::parallel_for(0, static_cast<int64_t>(chunks.size()) * heads, grain(elements_each),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t n = begin; n < end; ++n) each(n, chunks[static_cast<size_t>(n / heads)], n % heads);
                   });
}

}  // namespace

int64_t ahead(const at::Tensor& t, int64_t head, int64_t chunk_tokens) {
  return head + 1 < t.size(1) ? t.stride(1) : chunk_tokens * t.stride(0) - head * t.stride(1);
}

void scatter(const at::Tensor& from, const std::vector<RowRange>& chunks, Write write, const at::Tensor& to) {
  const int64_t heads = to.size(1), dim = to.size(2), rows = from.size(1);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, to.scalar_type(), "scatter", [&] {
    using W = at::opmath_type<scalar_t>;
    const W* source = from.const_data_ptr<W>();
    auto* target = to.mutable_data_ptr<scalar_t>();
    for_each_matrix(chunks, heads, rows * dim, [&](int64_t n, const RowRange& range, int64_t head) {
      scatter_rows<scalar_t, W>(source + n * rows * dim, range.size(), dim, write == Write::add,
                                target + range.begin * to.stride(0) + head * to.stride(1), to.stride(0),
                                ahead(to, head, rows));
    });
  });
}

void invert_unit_lower(const at::Tensor& pairs, const at::Tensor& inverse) {
  const int64_t rows = pairs.size(1);
  AT_DISPATCH_FLOATING_TYPES(pairs.scalar_type(), "invert_unit_lower", [&] {
    at::parallel_for(0, pairs.size(0), grain(rows * rows), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        invert_matrix(pairs.const_data_ptr<scalar_t>() + n * rows * rows, rows,
                      inverse.mutable_data_ptr<scalar_t>() + n * rows * rows);
      }
    });
  });
}

void step_states(const Matrices& stack, const StateDecay& decay, Recurrence step, const Matrices& state) {
  AT_DISPATCH_FLOATING_TYPES(state.type, "step_states", [&] {
    for_each_state<scalar_t>(stack, decay, state, [&](const StateRows<scalar_t>& s, int64_t) { step_state(s, step); });
  });
}

void step_back(const Matrices& stack, const StateDecay& decay, const Matrices& grad, const Matrices& before,
               const Matrices& grad_whole) {
  AT_DISPATCH_FLOATING_TYPES(grad.type, "step_back", [&] {
    for_each_state<scalar_t>(stack, decay, grad, [&](const StateRows<scalar_t>& s, int64_t n) {
      step_state_back<scalar_t>(s, before.of<scalar_t>(n), grad_whole.of<scalar_t>(n));
    });
  });
}

}  // namespace evenspan::run::chunked
