// Attention to some of the keys, and to the others.
#pragma once

#include <ATen/core/Tensor.h>

namespace evenspan::run {

// Makes output and its log-sum-exp those of all keys of both. output, other: [tiles, rows, heads, dim] or [rows, heads,
// dim], both lse without the last dimension and of the accumulation type; any strides but for dim, which is dense. A
// partial without keys has lse -inf and output 0; no row is without a key in both.
void merge_partials(const at::Tensor& output, const at::Tensor& lse, const at::Tensor& other,
                    const at::Tensor& other_lse);

}  // namespace evenspan::run
