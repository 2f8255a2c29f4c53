// Running a plan: bind it once per batch, run it in every layer, forward and backward.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>

#include "evenspan/comm/communicator.h"
#include "evenspan/core/error.h"
#include "evenspan/plan/plan.h"
#include "evenspan/plan/program.h"

namespace evenspan::run {

// Called with an Error that is about to leave a run, to throw what the caller's language has in its place. Torch passes
// Python's exceptions on as they are, but turns all others that leave a backward pass into a plain RuntimeError.
using Rethrow = std::function<void(const Error&)>;

// A plan bound to a communicator and a device, as one entry of the table of live executables. A value: copies share the
// entry, which lives until the last copy and the last saved activation of its runs are gone.
// Threads: one thread at a time runs an executable.
class Executable {
 public:
  Executable() = default;
  // Compares the plan's hash over the ranks (one small all-gather) and lowers this rank's program.
  // Throws communication on every rank, naming the part of the input that differs, when ranks hold different plans;
  // invalid_argument when the communicator's size is not the plan's. `rethrow` serves runs; empty: Errors stay Errors.
  Executable(std::shared_ptr<const plan::Plan> plan, comm::Communicator communicator,
             at::Device device = at::Device(at::kCPU), Rethrow rethrow = {});

  explicit operator bool() const { return entry_ != nullptr; }
  const plan::Plan& plan() const;
  const plan::RankProgram& program() const;
  Rank rank() const;
  int64_t num_tokens() const;  // home rows of this rank

  // The executable to torch: a 0-d CPU int64 tensor that names the table entry (an int would make torch.compile compile
  // anew for every batch). The entry lives at least as long as the tensor.
  at::Tensor handle() const;

  class Entry;
  const std::shared_ptr<Entry>& entry() const { return entry_; }

 private:
  std::shared_ptr<Entry> entry_;
};

// Exact attention over the packed documents of the plan, on this rank's rows.
//   query [tokens, heads, head_dim], key and value [tokens, kv_heads, head_dim]: this rank's home rows, last dimension
//   contiguous, of the plan's element type, on the executable's device.
//   Returns [tokens, heads, head_dim]. Scores are scaled by head_dim^-1/2.
// Differentiable; forward and backward exchange with the other ranks, so every rank calls both, in the same order.
// Throws invalid_argument, before anything is sent, for tensors that differ from the plan; communication when a rank
// fails.
at::Tensor attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     const Executable& executable);

}  // namespace evenspan::run
