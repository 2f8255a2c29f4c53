// A kernel made of a differentiable function of one segment.
#include <ATen/ops/eye.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/autograd.h>

#include "evenspan/run/linear_kernel.h"

namespace evenspan::run {
namespace {

// Autograd is off inside an operator.
struct AutogradOn {
  c10::impl::ForceDispatchKeyGuard keys{c10::impl::LocalDispatchKeySet(c10::impl::PODLocalDispatchKeySet{})};
  c10::AutoGradMode mode{true};
};

at::Tensor rows_of(const at::Tensor& x, RowRange rows) {
  return x.defined() && x.dim() > 1 ? x.slice(0, rows.begin, rows.end) : x;
}

at::Tensor leaf(const at::Tensor& x) { return x.defined() ? x.detach().requires_grad_() : x; }

// A segment that has run: leaves, and what came of them.
struct FunctionSegment {
  LinearOperands operands;
  at::Tensor state_before, output, state_after;
};

class Runner {
 public:
  Runner(const LinearOperands& operands, const LinearFunctionOfSegment& function)
      : operands_(operands), function_(function) {}

  // Undefined states are 0.
  FunctionSegment run(RowRange rows, const at::Tensor& state) const {
    const LinearOperands& all = operands_;
    FunctionSegment s;
    s.operands = {leaf(rows_of(all.query, rows)), leaf(rows_of(all.key, rows)),  leaf(rows_of(all.value, rows)),
                  leaf(rows_of(all.gate, rows)),  leaf(rows_of(all.beta, rows)), all.scale};
    s.state_before = leaf(state.defined() ? state : zero_state());
    std::tie(s.output, s.state_after) = function_(s.operands, s.state_before);
    return s;
  }

  at::Tensor zero_state() const {
    return at::zeros({all_heads(), operands_.query.size(2), operands_.value.size(2)}, wide_options());
  }

  // What the segment makes of the identity when its values are 0: its transition, since columns of a state evolve
  // alike.
  at::Tensor transition(RowRange rows) const {
    const int64_t key_dim = operands_.query.size(2);
    LinearOperands without = operands_;
    without.value = at::zeros({operands_.value.size(0), all_heads(), key_dim}, operands_.value.options());
    const at::Tensor eye = at::eye(key_dim, wide_options()).expand({all_heads(), key_dim, key_dim}).contiguous();
    return Runner(without, function_).run(rows, eye).state_after.detach();
  }

 private:
  int64_t all_heads() const { return operands_.value.size(1); }
  at::TensorOptions wide_options() const {
    return operands_.value.options().dtype(operands_.value.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  }

  const LinearOperands& operands_;
  const LinearFunctionOfSegment& function_;
};

class FunctionForward : public LinearForward {
 public:
  FunctionForward(const LinearOperands& operands, const at::Tensor& output, const LinearFunctionOfSegment& function)
      : operands_(operands), output_(output), function_(function) {}

  void summarize(const std::vector<RowRange>& segments, const std::vector<LinearSummary>& summaries) override {
    const AutogradOn on;
    for (size_t s = 0; s < segments.size(); ++s) {
      summaries[s].state.copy_(runner_.run(segments[s], {}).state_after.detach());
      at::Tensor transition = summaries[s].transition;
      if (!transition.defined()) continue;
      if (operands_.beta.defined()) {
        transition.copy_(runner_.transition(segments[s]));
      } else {
        transition.copy_(rows_of(operands_.gate.detach(), segments[s]).sum(0).view(transition.sizes()));
      }
    }
  }
  void intra(const std::vector<RowRange>& segments, const std::vector<char>& pending) override {
    for (size_t s = 0; s < segments.size(); ++s) {
      if (!pending[s]) write(segments[s], {});
    }
  }
  void apply(const std::vector<RowRange>& segments, const std::vector<at::Tensor>& states) override {
    for (size_t s = 0; s < segments.size(); ++s) write(segments[s], states[s]);
  }

 private:
  void write(RowRange rows, const at::Tensor& state) {
    const AutogradOn on;
    rows_of(output_, rows).copy_(runner_.run(rows, state).output.detach());
  }

  LinearOperands operands_;
  at::Tensor output_;
  LinearFunctionOfSegment function_;
  Runner runner_{operands_, function_};
};

class FunctionBackward : public LinearBackward {
 public:
  FunctionBackward(const LinearOperands& operands, const at::Tensor& grad_output, const LinearGradients& gradients,
                   const LinearFunctionOfSegment& function)
      : operands_(operands), grad_output_(grad_output), gradients_(gradients), function_(function) {
    if (has_fixed_gate()) gradients_.gate.zero_();
  }

  void summarize(const std::vector<RowRange>& segments, const std::vector<at::Tensor>& grad_states) override {
    const AutogradOn on;
    for (size_t s = 0; s < segments.size(); ++s) {
      const FunctionSegment segment = runner_.run(segments[s], {});
      grad_states[s].copy_(
          torch::autograd::grad({segment.output}, {segment.state_before}, {rows_of(grad_output_, segments[s])})[0]);
    }
  }
  void intra(const std::vector<RowRange>& segments, const std::vector<at::Tensor>& states,
             const std::vector<char>& pending) override {
    for (size_t s = 0; s < segments.size(); ++s) {
      if (!pending[s]) write(segments[s], states[s], {});
    }
  }
  void apply(const std::vector<RowRange>& segments, const std::vector<at::Tensor>& states,
             const std::vector<at::Tensor>& grad_states) override {
    for (size_t s = 0; s < segments.size(); ++s) write(segments[s], states[s], grad_states[s]);
  }
  void finish() override {}

 private:
  bool has_fixed_gate() const { return gradients_.gate.defined() && gradients_.gate.dim() == 1; }

  void write(RowRange rows, const at::Tensor& state, const at::Tensor& grad_state) {
    const AutogradOn on;
    const FunctionSegment segment = runner_.run(rows, state);
    std::vector<at::Tensor> outputs{segment.output}, grads{rows_of(grad_output_, rows)};
    if (grad_state.defined()) {
      outputs.push_back(segment.state_after);
      grads.push_back(grad_state);
    }
    const std::pair<at::Tensor, at::Tensor> all[] = {{segment.operands.query, gradients_.query},
                                                     {segment.operands.key, gradients_.key},
                                                     {segment.operands.value, gradients_.value},
                                                     {segment.operands.gate, gradients_.gate},
                                                     {segment.operands.beta, gradients_.beta}};
    std::vector<at::Tensor> leaves, targets;
    for (const auto& [own, target] : all) {
      if (!own.defined()) continue;
      leaves.push_back(own);
      targets.push_back(target);
    }
    const auto found = torch::autograd::grad(outputs, leaves, grads);
    for (size_t i = 0; i < found.size(); ++i) {
      targets[i].dim() == 1 ? targets[i].add_(found[i]) : rows_of(targets[i], rows).copy_(found[i]);
    }
  }

  LinearOperands operands_;
  at::Tensor grad_output_;
  LinearGradients gradients_;
  LinearFunctionOfSegment function_;
  Runner runner_{operands_, function_};
};

class FunctionKernel : public LinearKernel {
 public:
  explicit FunctionKernel(LinearFunctionOfSegment function) : function_(std::move(function)) {}
  std::unique_ptr<LinearForward> forward(const LinearOperands& operands, const at::Tensor& output) const override {
    return std::make_unique<FunctionForward>(operands, output, function_);
  }
  std::unique_ptr<LinearBackward> backward(const LinearOperands& operands, const at::Tensor& grad_output,
                                           const LinearGradients& gradients) const override {
    return std::make_unique<FunctionBackward>(operands, grad_output, gradients, function_);
  }

 private:
  LinearFunctionOfSegment function_;
};

}  // namespace

std::shared_ptr<const LinearKernel> make_function_kernel(LinearFunctionOfSegment function) {
  return std::make_shared<FunctionKernel>(std::move(function));
}

}  // namespace evenspan::run
