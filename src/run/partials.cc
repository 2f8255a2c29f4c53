#include "run/partials.h"

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/logaddexp.h>

#include <algorithm>
#include <cmath>

namespace evenspan::run {
namespace {

// The same as below by whole tensors, for every device.
void merge_whole(const at::Tensor& output, const at::Tensor& lse, const at::Tensor& other,
                 const at::Tensor& other_lse) {
  const at::Tensor sum = at::logaddexp(lse, other_lse);
  output.mul_((lse - sum).exp_().unsqueeze(-1));
  output.addcmul_(other, (other_lse - sum).exp_().unsqueeze(-1));
  lse.copy_(sum);
}

// REQUIRES: CPU, [tiles, rows, heads, dim] of one type.
template <class T>
void merge_rows(const at::Tensor& output, const at::Tensor& lse, const at::Tensor& other, const at::Tensor& other_lse) {
  using Sum = at::opmath_type<T>;
  constexpr int64_t kRowsOfAThread = 64;
  const int64_t rows = output.size(1), heads = output.size(2), dim = output.size(3);
  T* outputs = output.mutable_data_ptr<T>();
  Sum* sums = lse.mutable_data_ptr<Sum>();
  const T* others = other.const_data_ptr<T>();
  const Sum* other_sums = other_lse.const_data_ptr<Sum>();
  at::parallel_for(0, output.size(0) * rows, kRowsOfAThread, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t h = 0; h < heads; ++h) {
        const auto start = [&](const at::Tensor& x) {
          return i / rows * x.stride(0) + i % rows * x.stride(1) + h * x.stride(2);
        };
        Sum& own = sums[start(lse)];
        const Sum from_sum = other_sums[start(other_lse)];
        const Sum smaller = std::exp(-std::abs(from_sum - own));  // beside the larger, which counts 1
        const Sum share = (from_sum > own ? Sum(1) : smaller) / (1 + smaller);
        own = std::max(own, from_sum) + std::log1p(smaller);
        T* to = outputs + start(output);
        const T* from = others + start(other);
        for (int64_t d = 0; d < dim; ++d) {
          const Sum before = static_cast<Sum>(to[d]);
          to[d] = static_cast<T>(before + share * (static_cast<Sum>(from[d]) - before));
        }
      }
    }
  });
}

}  // namespace

void merge_partials(const at::Tensor& output, const at::Tensor& lse, const at::Tensor& other,
                    const at::Tensor& other_lse) {
  const at::Tensor alike = other.to(output.scalar_type());
  if (!output.is_cpu()) return merge_whole(output, lse, alike, other_lse);
  const auto tiles = [&](const at::Tensor& x) { return output.dim() == 3 ? x.unsqueeze(0) : x; };
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, output.scalar_type(), "merge_partials", [&] {
    merge_rows<scalar_t>(tiles(output), tiles(lse), tiles(alike), tiles(other_lse));
  });
}

}  // namespace evenspan::run
