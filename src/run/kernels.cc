#include "run/kernels.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>

#include <limits>

#include "evenspan/core/error.h"
#include "run/kernel_backends.h"

namespace evenspan::run {

at::Tensor additive_mask(const KernelCall& call) {
  const auto options = call.query.options().dtype(at::kLong);
  const int64_t offset = call.first_query - call.first_key;
  const at::Tensor queries = at::arange(offset, offset + call.query.size(1), options).unsqueeze(1);
  const at::Tensor keys = at::arange(0, call.key.size(1), options).unsqueeze(0);
  at::Tensor allowed = (queries - keys).lt(call.window);
  if (call.kind == plan::TileKind::band) allowed = allowed.logical_and(keys.le(queries));
  return at::zeros(allowed.sizes(), call.query.options())
      .masked_fill_(allowed.logical_not(), -std::numeric_limits<double>::infinity());
}

bool is_masked(const KernelCall& call) {
  return call.kind == plan::TileKind::window || call.kind == plan::TileKind::band;
}

void attend(const std::vector<KernelCall>& calls) {
  if (calls.empty()) return;
  calls.front().query.is_cpu() ? attend_cpu(calls) : attend_device(calls);
}

void attend_gradient(const std::vector<KernelCall>& calls) {
  if (calls.empty()) return;
  calls.front().query.is_cpu() ? attend_gradient_cpu(calls) : attend_gradient_device(calls);
}

}  // namespace evenspan::run
