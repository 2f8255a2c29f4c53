// Views without the way through the dispatcher, which for a small tile costs as much as its kernel.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>

namespace evenspan::run {

// A view of the storage of `of`, of any type; `start` counts elements of that type.
inline at::Tensor make_view(const at::Tensor& of, caffe2::TypeMeta type, at::IntArrayRef sizes, at::IntArrayRef strides,
                            int64_t start) {
  at::Tensor view =
      at::detail::make_tensor<c10::TensorImpl>(c10::TensorImpl::VIEW, c10::Storage(of.storage()), of.key_set(), type);
  view.unsafeGetTensorImpl()->set_storage_offset(start);
  view.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides);
  return view;
}

// `count` tiles of `rows` rows each of x [..., rows, heads, dim] or [..., rows, heads], whose second dimension is rows:
// the first begins at element `start` of the storage, each next one `step` elements behind the one before.
inline at::Tensor view_tiles(const at::Tensor& x, int64_t start, int64_t count, int64_t step, int64_t rows) {
  const bool wide = x.dim() == 4;
  const std::array<int64_t, 4> sizes{count, rows, x.size(2), wide ? x.size(3) : 1};
  const std::array<int64_t, 4> strides{step, x.stride(1), x.stride(2), wide ? x.stride(3) : 1};
  const auto dims = static_cast<size_t>(x.dim());
  return make_view(x, x.dtype(), at::IntArrayRef(sizes.data(), dims), at::IntArrayRef(strides.data(), dims), start);
}

}  // namespace evenspan::run
