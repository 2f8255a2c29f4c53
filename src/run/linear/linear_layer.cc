// A linear layer's runs on an executable's entry.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <functional>

#include "run/entry.h"
#include "run/interpreter.h"

namespace evenspan::run {

using plan::TensorName;

namespace {

// What ranks must agree on.
std::vector<comm::ComparedValue> fingerprint(const plan::AttentionShape& shape, const plan::StateOptions& options) {
  const auto& names = plan::transports();
  const auto at = std::find_if(names.begin(), names.end(), [&](const auto& t) { return t.name == options.transport; });
  const auto number = [](auto value) { return static_cast<uint64_t>(value); };
  return {{"heads", number(shape.num_heads)},
          {"key dimension", number(shape.head_dim)},
          {"value dimension", number(shape.state.value_dim)},
          {"element type", number(shape.element)},
          {"kind of gate", number(shape.state.gate)},
          {"delta rule", shape.state.delta_rule},
          {"initial state", shape.state.initial},
          {"final state", shape.state.final},
          {"transport", number(at - names.begin())},
          {"state blocks", number(options.blocks)}};
}

std::vector<int64_t> state_sizes(const plan::Plan& plan, const plan::AttentionShape& shape) {
  return {plan.request.documents.size(), shape.num_heads, shape.head_dim, shape.state.value_dim};
}

// A gate that all tokens share.
at::Tensor fixed_decay(const LinearOperands& operands, const plan::AttentionShape& shape) {
  return shape.state.transition() == plan::Transition::known ? operands.gate : at::Tensor();
}

}  // namespace

const Executable::Entry::LinearProgram& Executable::Entry::linear_program(const plan::AttentionShape& shape,
                                                                          const plan::StateOptions& options) {
  for (const LinearProgram& known : linear_programs_) {
    if (known.shape == shape && known.options == options) return known;
  }
  const std::vector<comm::ComparedValue> parts = fingerprint(shape, options);
  comm::compare(communicator_, parts, {"linear layer check", "layers", "give every rank the same layer", device_});
  std::string kind = ", layer";
  for (const comm::ComparedValue& part : parts) kind += join_text(" ", part.value);
  linear_programs_.push_back({shape, options, std::move(kind), call("linear layer", "", [&] {
                                return plan::lower_linear(*plan_, shape, options, communicator_.rank());
                              })});
  return linear_programs_.back();
}

const plan::Halos& Executable::Entry::halos(int32_t width) {
  const auto known = halos_.find(width);
  if (known != halos_.end()) return known->second;
  return halos_.emplace(width, plan::halos(plan_->placement, width, communicator_.rank())).first->second;
}

Executable::Entry::LinearForwardResult Executable::Entry::linear_forward(const LinearOperands& operands,
                                                                         const at::Tensor& initial_state,
                                                                         const at::Tensor& saved,
                                                                         const LinearProgram& layer,
                                                                         const LinearKernel& kernel) {
  const at::AutoDispatchBelowADInplaceOrView guard;
  const auto& [shape, options, kind, program] = layer;
  LinearForwardResult result;
  result.output = at::empty_like(operands.value, operands.value.options(), at::MemoryFormat::Contiguous);
  Memory memory;
  memory.home_of(TensorName::state) = initial_state;
  if (shape.state.final) {
    const auto type = scalar_type(plan::accumulation_type(shape.element));
    result.final_state = at::zeros(state_sizes(*plan_, shape), operands.value.options().dtype(type));
    memory.home_of(TensorName::final_state) = result.final_state;
  }
  result.saved = saved.defined() ? saved : make_saved(program);
  memory.buffers = buffers(program, result.saved);
  const plan::Phase& phase = program.phase(saved.defined() ? plan::PhaseKind::recompute : plan::PhaseKind::forward);
  const auto pass = kernel.forward(operands, result.output);
  memory.linear = {pass.get(), nullptr, fixed_decay(operands, shape)};
  run_phase(phase, shape, memory, communicator_, "linear attention forward");
  return result;
}

Executable::Entry::LinearBackwardResult Executable::Entry::linear_backward(
    const LinearOperands& operands, const at::Tensor& grad_output, const at::Tensor& grad_final_state,
    const at::Tensor& initial_state, const at::Tensor& saved, const LinearProgram& layer, const LinearKernel& kernel) {
  const at::AutoDispatchBelowADInplaceOrView guard;
  const auto& [shape, options, kind, program] = layer;
  LinearBackwardResult result;
  const auto like = [](const at::Tensor& x) {
    return x.defined() ? at::empty_like(x, x.options(), at::MemoryFormat::Contiguous) : at::Tensor();
  };
  result.operands = {like(operands.query), like(operands.key), like(operands.value), like(operands.gate),
                     like(operands.beta)};
  Memory memory;
  memory.home_of(TensorName::state) = initial_state;
  memory.home_of(TensorName::grad_state) = grad_final_state;
  if (shape.state.initial) {
    result.initial_state = at::zeros(initial_state.sizes(), initial_state.options());
    memory.home_of(TensorName::grad_initial_state) = result.initial_state;
  }
  memory.buffers = buffers(program, saved);
  const auto pass = kernel.backward(operands, grad_output, result.operands);
  memory.linear = {nullptr, pass.get(), fixed_decay(operands, shape)};
  run_phase(program.phase(plan::PhaseKind::backward), shape, memory, communicator_, "linear attention backward");
  pass->finish();
  return result;
}

}  // namespace evenspan::run
