// Running the operations of a program on real tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <string>
#include <vector>

#include "evenspan/comm/communicator.h"
#include "evenspan/plan/program.h"
#include "evenspan/run/linear_kernel.h"

namespace evenspan::run {

// The kernels of a linear layer's run: of the pass that the program is of.
struct LinearPass {
  LinearForward* forward = nullptr;
  LinearBackward* backward = nullptr;
  at::Tensor log_decay;  // [heads] of known transitions; undefined: they are the identity
};

// The memory of one run. Home tensors have [rows, heads, width] with a contiguous last dimension, home states are
// contiguous [documents, heads, key_dim, value_dim]; those that the program does not name are undefined.
struct Memory {
  std::array<at::Tensor, plan::kNumTensorNames> home;
  std::vector<at::Tensor> buffers;  // [BufferId] bytes; undefined for home
  LinearPass linear;

  at::Tensor& home_of(plan::TensorName name) { return home[static_cast<size_t>(name)]; }
  const at::Tensor& home_of(plan::TensorName name) const { return home[static_cast<size_t>(name)]; }
};

// As programs and kernels take home tensors.
inline at::Tensor rows_contiguous(const at::Tensor& x) {
  return x.stride(-1) == 1 || x.size(-1) == 1 ? x : x.contiguous();
}

// Runs the operations in order; returns when all exchanges are complete. `name` is for errors ("attention forward").
void run_phase(const plan::Phase& phase, const plan::AttentionShape& shape, const Memory& memory,
               const comm::Communicator& communicator, const std::string& name);

}  // namespace evenspan::run
