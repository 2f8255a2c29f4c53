#include <ATen/Parallel.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <optional>

#include "run/kernel_backends.h"

namespace evenspan::run {
namespace {

// The kernel takes [batch, heads, rows, dim].
at::Tensor kernel_layout(const at::Tensor& x) { return x.transpose(0, 1).unsqueeze(0); }
at::Tensor home_layout(const at::Tensor& x) { return x.squeeze(0).transpose(0, 1); }

std::optional<at::Tensor> mask_of(const KernelCall& call) {
  if (!is_masked(call)) return std::nullopt;
  return additive_mask(call);
}

int64_t num_pairs(const KernelCall& call) { return call.query.size(0) * call.key.size(0) * call.query.size(1); }

// The kernel splits one call over threads by heads and blocks of rows. Calls too small for that run side by side
// instead, one thread each. Below this many pairs a call has about as little to do as starting threads costs.
constexpr int64_t kSmallPairs = int64_t{1} << 18;

template <class Call>
void run_calls(const std::vector<KernelCall>& calls, Call&& run) {
  const auto count = static_cast<int64_t>(calls.size());
  if (at::get_num_threads() == 1 || count == 1) {
    for (int64_t i = 0; i < count; ++i) run(i);
    return;
  }
  std::vector<int64_t> small;
  for (int64_t i = 0; i < count; ++i) {
    if (num_pairs(calls[static_cast<size_t>(i)]) >= kSmallPairs) {
      run(i);
    } else {
      small.push_back(i);
    }
  }
  const auto dispatch_keys = c10::impl::tls_local_dispatch_key_set();
  at::parallel_for(0, static_cast<int64_t>(small.size()), 1, [&](int64_t begin, int64_t end) {
    const c10::impl::ForceDispatchKeyGuard guard(dispatch_keys);
    for (int64_t i = begin; i < end; ++i) run(small[static_cast<size_t>(i)]);
  });
}

}  // namespace

std::vector<KernelResult> attend_cpu(const std::vector<KernelCall>& calls) {
  std::vector<KernelResult> results(calls.size());
  run_calls(calls, [&](int64_t i) {
    const KernelCall& call = calls[static_cast<size_t>(i)];
    auto [output, lse] = at::_scaled_dot_product_flash_attention_for_cpu(
        kernel_layout(call.query), kernel_layout(call.key), kernel_layout(call.value), 0.0,
        call.kind == plan::TileKind::causal, mask_of(call), std::nullopt);
    results[static_cast<size_t>(i)] = {home_layout(output), home_layout(lse)};
  });
  return results;
}

std::vector<KernelGradients> attend_gradient_cpu(const std::vector<KernelCall>& calls) {
  std::vector<KernelGradients> results(calls.size());
  run_calls(calls, [&](int64_t i) {
    const KernelCall& call = calls[static_cast<size_t>(i)];
    auto [query, key, value] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        kernel_layout(call.grad_output), kernel_layout(call.query), kernel_layout(call.key), kernel_layout(call.value),
        kernel_layout(call.output), kernel_layout(call.lse).contiguous(), 0.0, call.kind == plan::TileKind::causal,
        mask_of(call), std::nullopt);
    results[static_cast<size_t>(i)] = {home_layout(query), home_layout(key), home_layout(value)};
  });
  return results;
}

}  // namespace evenspan::run
