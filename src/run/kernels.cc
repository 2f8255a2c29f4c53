#include "run/kernels.h"

#include "evenspan/core/error.h"
#include "run/kernel_backends.h"

namespace evenspan::run {

at::Tensor additive_mask(const KernelCall& call) {
  const auto options = call.query.options().dtype(at::kLong);
  const at::Tensor queries = at::arange(call.first_query, call.first_query + call.query.size(0), options).unsqueeze(1);
  const at::Tensor keys = at::arange(call.first_key, call.first_key + call.key.size(0), options).unsqueeze(0);
  at::Tensor allowed = (queries - keys).lt(call.window);
  if (call.kind == plan::TileKind::band) allowed = allowed.logical_and(keys.le(queries));
  return at::zeros(allowed.sizes(), call.query.options())
      .masked_fill_(allowed.logical_not(), -std::numeric_limits<double>::infinity());
}

bool is_masked(const KernelCall& call) {
  return call.kind == plan::TileKind::window || call.kind == plan::TileKind::band;
}

std::vector<KernelResult> attend(const std::vector<KernelCall>& calls) {
  if (calls.empty()) return {};
  const at::Device device = calls.front().query.device();
  if (device.is_cpu()) return attend_cpu(calls);
  return attend_device(calls);
}

std::vector<KernelGradients> attend_gradient(const std::vector<KernelCall>& calls) {
  if (calls.empty()) return {};
  const at::Device device = calls.front().query.device();
  if (device.is_cpu()) return attend_gradient_cpu(calls);
  return attend_gradient_device(calls);
}

}  // namespace evenspan::run
