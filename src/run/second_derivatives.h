// Runs are differentiable once: what a backward pass returns says so when it is differentiated again.
#pragma once

#include <torch/csrc/autograd/custom_function.h>

#include <memory>

#include "run/entry.h"

namespace evenspan::run {

// The gradients, defined or not, that the backward pass under way returns for `incoming`. Where a graph is made of the
// pass (create_graph) they require gradients of all that it depends on, and differentiating them throws unsupported,
// with the name of the operation.
torch::autograd::variable_list differentiable_once(const torch::autograd::variable_list& gradients,
                                                   const torch::autograd::variable_list& incoming,
                                                   const std::shared_ptr<Executable::Entry>& entry,
                                                   const char* operation);

}  // namespace evenspan::run
