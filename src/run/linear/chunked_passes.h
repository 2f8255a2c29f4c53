// The passes of the chunked kernel.
#pragma once

#include <memory>

#include "evenspan/run/linear_kernel.h"

namespace evenspan::run::chunked {

std::unique_ptr<LinearForward> make_forward(const LinearOperands& operands, const at::Tensor& output,
                                            int64_t chunk_tokens);
std::unique_ptr<LinearBackward> make_backward(const LinearOperands& operands, const at::Tensor& grad_output,
                                              const LinearGradients& gradients, int64_t chunk_tokens);

}  // namespace evenspan::run::chunked
