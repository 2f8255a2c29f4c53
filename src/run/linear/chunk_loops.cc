#include "run/linear/chunk_loops.h"

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "run/linear/vector_math.h"

namespace evenspan::run::chunked {
namespace {

template <class From, class W>
EVENSPAN_VECTOR_CLONES void gather_rows(const From* from, int64_t from_stride, int64_t rows, int64_t dim, W factor,
                                        const W* beta, int64_t beta_stride, W* to, int64_t padded_rows,
                                        int64_t padded_dim) {
  for (int64_t r = 0; r < rows; ++r) {
    const W f = beta != nullptr ? factor * beta[r * beta_stride] : factor;
    W* row = to + r * padded_dim;
    for (int64_t d = 0; d < dim; ++d) row[d] = f * static_cast<W>(from[r * from_stride + d]);
    std::fill(row + dim, row + padded_dim, W(0));
  }
  std::fill(to + rows * padded_dim, to + padded_rows * padded_dim, W(0));
}

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
EVENSPAN_VECTOR_CLONES void scale_matrix(const W* from, const W* by, int64_t rows, int64_t dim, int64_t width, W* to) {
  for (int64_t r = 0; r < rows; ++r) {
    if (width == 1) {
      for (int64_t d = 0; d < dim; ++d) to[r * dim + d] = from[r * dim + d] * by[r];
    } else {
      for (int64_t d = 0; d < dim; ++d) to[r * dim + d] = from[r * dim + d] * by[r * dim + d];
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
EVENSPAN_VECTOR_CLONES void step_state(W* stack, const W* whole, bool increment, W* state, int64_t rows, int64_t dim,
                                       int64_t width) {
  for (int64_t r = 0; r < rows; ++r) {
    const W decay = whole == nullptr ? W(1) : whole[width == 1 ? 0 : r];
    for (int64_t d = r * dim; d < (r + 1) * dim; ++d) {
      const W added = increment ? stack[d] : W(0);
      stack[d] = state[d];
      state[d] = decay * state[d] + added;
    }
  }
}

// Enough for a thread to be worth it.
int64_t grain(int64_t elements_each) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, elements_each)); }

// For each matrix of a block: `each(n, rows of the operands, head)`.
template <class Each>
void for_each_matrix(const std::vector<RowRange>& chunks, int64_t heads, int64_t elements_each, Each&& each) {
  at::parallel_for(0, static_cast<int64_t>(chunks.size()) * heads, grain(elements_each),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t n = begin; n < end; ++n) each(n, chunks[static_cast<size_t>(n / heads)], n % heads);
                   });
}

}  // namespace

void gather(const at::Tensor& from, const std::vector<RowRange>& chunks, double factor, const at::Tensor& beta,
            const at::Tensor& to) {
  const int64_t heads = from.size(1), dim = from.size(2), rows = to.size(1), padded_dim = to.size(2);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, from.scalar_type(), "gather", [&] {
    using W = at::opmath_type<scalar_t>;
    const auto* source = from.const_data_ptr<scalar_t>();
    const W* betas = beta.defined() ? beta.const_data_ptr<W>() : nullptr;
    W* target = to.mutable_data_ptr<W>();
    for_each_matrix(chunks, heads, rows * padded_dim, [&](int64_t n, const RowRange& range, int64_t head) {
      gather_rows<scalar_t, W>(source + range.begin * from.stride(0) + head * from.stride(1), from.stride(0),
                               range.size(), dim, static_cast<W>(factor),
                               betas == nullptr ? nullptr : betas + range.begin * heads + head, heads,
                               target + n * rows * padded_dim, rows, padded_dim);
    });
  });
}

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

void scale_rows(const at::Tensor& from, const at::Tensor& by, const at::Tensor& to) {
  const int64_t rows = from.size(1), dim = from.size(2), width = by.size(2);
  AT_DISPATCH_FLOATING_TYPES(from.scalar_type(), "scale_rows", [&] {
    at::parallel_for(0, from.size(0), grain(rows * dim), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        scale_matrix(from.const_data_ptr<scalar_t>() + n * rows * dim, by.const_data_ptr<scalar_t>() + n * rows * width,
                     rows, dim, width, to.mutable_data_ptr<scalar_t>() + n * rows * dim);
      }
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

void step_states(const at::Tensor& stack, const at::Tensor& whole, bool increment, const at::Tensor& state) {
  const int64_t rows = state.size(1), dim = state.size(2);
  const int64_t width = whole.defined() ? whole.size(1) : 0;
  AT_DISPATCH_FLOATING_TYPES(state.scalar_type(), "step_states", [&] {
    const scalar_t* wholes = whole.defined() ? whole.const_data_ptr<scalar_t>() : nullptr;
    at::parallel_for(0, state.size(0), grain(rows * dim), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        step_state(stack.mutable_data_ptr<scalar_t>() + n * rows * dim,
                   wholes == nullptr ? nullptr : wholes + n * width, increment,
                   state.mutable_data_ptr<scalar_t>() + n * rows * dim, rows, dim, width);
      }
    });
  });
}

}  // namespace evenspan::run::chunked
