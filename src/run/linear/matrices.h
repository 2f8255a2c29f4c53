// A stack of matrices without its storage: what products and loops get, since views of tensors cost as much as a small
// matrix's product.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <utility>

namespace evenspan::run::chunked {

// [count, rows, columns], or of a tensor [count, columns] one row each; of any strides, float32 or float64. The tensor
// outlives it.
struct Matrices {
  Matrices() = default;
  // NOLINTNEXTLINE(google-explicit-constructor): a tensor is its stack of matrices
  Matrices(const at::Tensor& stack) {
    if (!stack.defined()) return;
    const bool deep = stack.dim() == 3;
    first = static_cast<std::byte*>(stack.mutable_data_ptr());
    type = stack.scalar_type();
    count = stack.size(0);
    rows = deep ? stack.size(1) : 1;
    columns = stack.size(-1);
    stride = stack.stride(0);
    row_stride = deep ? stack.stride(1) : columns;
    column_stride = stack.stride(-1);
  }

  bool defined() const { return first != nullptr; }
  Matrices transposed() const {
    Matrices other = *this;
    std::swap(other.rows, other.columns);
    std::swap(other.row_stride, other.column_stride);
    return other;
  }
  // Undefined if this is.
  Matrices part(int64_t begin, int64_t size) const {
    Matrices other = *this;
    if (defined()) other.first += begin * stride * static_cast<int64_t>(c10::elementSize(type));
    other.count = size;
    return other;
  }
  // Of matrix n; null if undefined.
  template <class W>
  W* of(int64_t n) const {
    return defined() ? reinterpret_cast<W*>(first) + n * stride : nullptr;
  }

  std::byte* first = nullptr;
  at::ScalarType type = at::kFloat;
  int64_t count = 0, rows = 0, columns = 0, stride = 0, row_stride = 0, column_stride = 0;
};

}  // namespace evenspan::run::chunked
