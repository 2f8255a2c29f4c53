#include "run/second_derivatives.h"

#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>

#include <utility>

namespace evenspan::run {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Refusal : torch::CustomClassHolder {
  std::shared_ptr<Executable::Entry> entry;
  const char* operation = "";
};

// Passes on the first `count` of the tensors; the others are what these depend on.
struct OnceFunction : torch::autograd::Function<OnceFunction> {
  static variable_list forward(AutogradContext* context, at::TensorList tensors, int64_t count,
                               const c10::intrusive_ptr<Refusal>& refusal) {
    context->saved_data["refusal"] = c10::IValue::make_capsule(refusal);
    return tensors.slice(0, static_cast<size_t>(count)).vec();
  }

  static variable_list backward(AutogradContext* context, const variable_list&) {
    const auto capsule = context->saved_data["refusal"].toCapsule();
    const auto* refusal = static_cast<const Refusal*>(capsule.get());
    refusal->entry->check(refusal->operation, [refusal] {
      fail(ErrorKind::unsupported, "[", refusal->operation,
           "] it has first derivatives only, but its gradient is differentiated again; leave out create_graph, or "
           "compute this layer with operations of torch on one rank");
    });
    return {};
  }
};

}  // namespace

variable_list differentiable_once(const variable_list& gradients, const variable_list& incoming,
                                  const std::shared_ptr<Executable::Entry>& entry, const char* operation) {
  if (!c10::GradMode::is_enabled()) return gradients;
  variable_list tensors;
  for (const at::Tensor& gradient : gradients) {
    if (gradient.defined()) tensors.push_back(gradient);
  }
  const auto count = static_cast<int64_t>(tensors.size());
  for (const at::Tensor& gradient : incoming) {
    if (gradient.defined()) tensors.push_back(gradient);
  }
  // All that the forward pass took: the edges of the pass under way lead there, and an empty tensor stands for each.
  if (const auto pass = torch::autograd::get_current_node()) {
    for (const torch::autograd::Edge& edge : pass->next_edges()) {
      if (edge.is_valid()) tensors.push_back(torch::autograd::make_variable(at::empty({0}), edge));
    }
  }
  auto refusal = c10::make_intrusive<Refusal>();
  refusal->entry = entry;
  refusal->operation = operation;
  variable_list marked = OnceFunction::apply(at::TensorList(tensors), count, refusal);
  variable_list result = gradients;
  size_t next = 0;
  for (at::Tensor& gradient : result) {
    if (gradient.defined()) gradient = std::move(marked[next++]);
  }
  return result;
}

}  // namespace evenspan::run
