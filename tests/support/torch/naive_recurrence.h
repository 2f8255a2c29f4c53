// The recurrence of linear attention, token by token: what everything else is compared with.
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

namespace evenspan::test {

// One document. query, key [n, heads, key_dim], value [n, heads, value_dim], gate and beta as in run/linear_kernel.h,
// initial_state [heads, key_dim, value_dim] or undefined. Returns output and final state. Differentiable; in the type
// of the inputs.
std::pair<at::Tensor, at::Tensor> naive_recurrence(const at::Tensor& query, const at::Tensor& key,
                                                   const at::Tensor& value, const at::Tensor& gate,
                                                   const at::Tensor& beta, double scale,
                                                   const at::Tensor& initial_state);

}  // namespace evenspan::test
