// Running the operations of a program on real tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <string>

#include "evenspan/comm/communicator.h"
#include "evenspan/plan/program.h"

namespace evenspan::run {

// The memory of one run. Home tensors have [rows, heads, head_dim] with a contiguous last dimension; those that the
// program does not name are undefined.
struct Memory {
  std::array<at::Tensor, plan::kNumTensorNames> home;
  at::Tensor arena;  // bytes
  at::Tensor saved;  // bytes
};

// Runs the operations in order; returns when all exchanges are complete. `name` is for errors ("attention forward").
void run_program(const plan::Program& program, const plan::AttentionShape& shape, const Memory& memory,
                 const comm::Communicator& communicator, const std::string& name);

}  // namespace evenspan::run
