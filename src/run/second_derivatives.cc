#include "run/second_derivatives.h"

#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/function.h>

#include <algorithm>
#include <utility>

namespace evenspan::run {
namespace {

using torch::autograd::Edge;
using torch::autograd::Node;
using torch::autograd::variable_list;

class Refusal : public Node {
 public:
  Refusal(torch::autograd::edge_list inputs, std::shared_ptr<Executable::Entry> entry, const char* operation)
      : Node(std::move(inputs)), entry_(std::move(entry)), operation_(operation) {}

 private:
  variable_list apply(variable_list&&) override {
    entry_->check(operation_, [this] {
      fail(ErrorKind::unsupported, "[", operation_,
           "] it has first derivatives only, but its gradient is differentiated again; leave out create_graph, or "
           "compute this layer with operations of torch on one rank");
    });
    return {};
  }

  const std::shared_ptr<Executable::Entry> entry_;
  const char* const operation_;
};

}  // namespace

variable_list differentiable_once(variable_list gradients, const variable_list& incoming,
                                  const std::shared_ptr<Executable::Entry>& entry, const char* operation) {
  if (!c10::GradMode::is_enabled()) return gradients;
  // The pass depends on what comes in and on all that the forward pass took, to which its own node leads.
  torch::autograd::edge_list inputs = torch::autograd::collect_next_edges(incoming);
  if (const auto pass = torch::autograd::get_current_node()) {
    inputs.insert(inputs.end(), pass->next_edges().begin(), pass->next_edges().end());
  }
  std::erase_if(inputs, [](const Edge& edge) { return !edge.is_valid(); });
  if (inputs.empty()) return gradients;
  const std::shared_ptr<Node> refusal(new Refusal(std::move(inputs), entry, operation), torch::autograd::deleteNode);
  for (at::Tensor& gradient : gradients) {
    if (gradient.defined()) torch::autograd::set_history(gradient, refusal);
  }
  return gradients;
}

}  // namespace evenspan::run
