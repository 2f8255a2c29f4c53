#include "run/linear/chunk_loops.h"

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "run/linear/vector_math.h"

namespace evenspan::run::chunked {
namespace {

template <class To, class W>
EVENSPAN_VECTOR_CLONES void scatter_rows(const W* from, int64_t rows, int64_t dim, bool add, To* to,
                                         int64_t to_stride) {
  for (int64_t r = 0; r < rows; ++r) {
    To* row = to + r * to_stride;
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

template <class W>
EVENSPAN_VECTOR_CLONES void step_state(W* stack, const W* whole, Step step, W* state, int64_t rows, int64_t dim,
                                       int64_t width) {
  for (int64_t r = 0; r < rows; ++r) {
    const W decay = whole == nullptr ? W(1) : whole[width == 1 ? 0 : r];
    W *a = stack + r * dim, *b = state + r * dim;
    for (int64_t d = 0; d < dim; ++d) {
      const W stacked = a[d];
      a[d] = b[d];
      b[d] = step == Step::increment ? decay * b[d] + stacked : decay * b[d];
    }
  }
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

void scatter(const at::Tensor& from, const std::vector<RowRange>& chunks, Write write, const at::Tensor& to) {
  const int64_t heads = to.size(1), dim = to.size(2), rows = from.size(1);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, to.scalar_type(), "scatter", [&] {
    using W = at::opmath_type<scalar_t>;
    const W* source = from.const_data_ptr<W>();
    auto* target = to.mutable_data_ptr<scalar_t>();
    for_each_matrix(chunks, heads, rows * dim, [&](int64_t n, const RowRange& range, int64_t head) {
      scatter_rows<scalar_t, W>(source + n * rows * dim, range.size(), dim, write == Write::add,
                                target + range.begin * to.stride(0) + head * to.stride(1), to.stride(0));
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

void step_states(const at::Tensor& stack, const at::Tensor& whole, Step step, const at::Tensor& state) {
  const int64_t rows = state.size(1), dim = state.size(2);
  const int64_t width = whole.defined() ? whole.size(1) : 0;
  AT_DISPATCH_FLOATING_TYPES(state.scalar_type(), "step_states", [&] {
    const scalar_t* wholes = whole.defined() ? whole.const_data_ptr<scalar_t>() : nullptr;
    at::parallel_for(0, state.size(0), grain(rows * dim), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        step_state(stack.mutable_data_ptr<scalar_t>() + n * rows * dim,
                   wholes == nullptr ? nullptr : wholes + n * width, step,
                   state.mutable_data_ptr<scalar_t>() + n * rows * dim, rows, dim, width);
      }
    });
  });
}

}  // namespace evenspan::run::chunked
