// A plan bound to a communicator and a device.
#pragma once

#include <ATen/core/Tensor.h>

#include <list>
#include <map>
#include <memory>
#include <mutex>

#include "evenspan/comm/communicator.h"
#include "evenspan/core/error.h"
#include "evenspan/plan/halo.h"
#include "evenspan/plan/linear.h"
#include "evenspan/plan/program.h"
#include "evenspan/run/executable.h"
#include "evenspan/run/linear_kernel.h"

namespace evenspan::run {

at::ScalarType scalar_type(plan::ElementType type);

class Executable::Entry : public std::enable_shared_from_this<Executable::Entry> {
 public:
  Entry(std::shared_ptr<const plan::Plan> plan, comm::Communicator communicator, at::Device device, Rethrow rethrow);

  struct Forward {
    at::Tensor output;
    at::Tensor saved;  // a 0-d CPU int64 tensor that names the saved buffer and owns it
  };
  // query, key and value as `attention` takes them. Throws as `attention` does; tells the other ranks first.
  Forward forward(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value);

  struct Gradients {
    at::Tensor query, key, value;
  };
  Gradients backward(const at::Tensor& grad_output, const at::Tensor& query, const at::Tensor& key,
                     const at::Tensor& value, const at::Tensor& output, const at::Tensor& saved);

  // A linear layer on the plan.
  struct LinearProgram {
    plan::AttentionShape shape;
    plan::StateOptions options;
    std::string kind;  // its shape and options, to tell it from others
    plan::RankProgram program;
  };
  // Made at its first use, which every rank comes to at once: they compare the layer. Valid as long as the entry.
  const LinearProgram& linear_program(const plan::AttentionShape& shape, const plan::StateOptions& options);

  // Of a linear layer, as linear_attention takes them; gate and beta in the accumulation type.
  struct LinearForwardResult {
    at::Tensor output;
    at::Tensor final_state;  // undefined unless the shape has one
    at::Tensor saved;
  };
  // With `saved` of an earlier call with the same inputs it computes from its states and sends nothing.
  LinearForwardResult linear_forward(const LinearOperands& operands, const at::Tensor& initial_state,
                                     const at::Tensor& saved, const LinearProgram& layer, const LinearKernel& kernel);
  struct LinearBackwardResult {
    LinearGradients operands;
    at::Tensor initial_state;  // undefined unless the shape has one
  };
  LinearBackwardResult linear_backward(const LinearOperands& operands, const at::Tensor& grad_output,
                                       const at::Tensor& grad_final_state, const at::Tensor& initial_state,
                                       const at::Tensor& saved, const LinearProgram& layer, const LinearKernel& kernel);

  // Runs `body` as one call of all ranks (Communicator::call). `kind` is what they must agree on beside the operation
  // and the plan.
  template <class Body>
  auto call(const char* operation, const std::string& kind, Body&& body) const;

  // Runs `body`, which sends nothing; when it throws, this rank has refused a call.
  template <class Body>
  auto check(const char* operation, Body&& body) const;

  // Of this rank, made at the first convolution of the width.
  const plan::Halos& halos(int32_t width);

  at::Device device() const { return device_; }
  const plan::Plan& plan() const { return *plan_; }
  const plan::RankProgram& program() const { return program_; }
  const comm::Communicator& communicator() const { return communicator_; }

 private:
  void compare_hashes() const;
  // Throws unless the tensor has this rank's rows and the plan's heads, type and device.
  void check_rows(const char* name, const at::Tensor& tensor, int32_t num_heads) const;
  at::Tensor make_bytes(int64_t num_bytes) const;
  // A handle of new buffers that live until it is released.
  at::Tensor make_saved(const plan::RankProgram& program);
  // Those of a run, and the ones that phases share.
  std::vector<at::Tensor> buffers(const plan::RankProgram& program, const at::Tensor& saved);

  std::shared_ptr<const plan::Plan> plan_;
  comm::Communicator communicator_;
  at::Device device_;
  Rethrow rethrow_;
  std::string plan_name_;  // "plan " and its hash
  plan::RankProgram program_;
  std::list<LinearProgram> linear_programs_;
  std::map<int32_t, plan::Halos> halos_;              // by width
  std::vector<at::Tensor> phase_buffers_;             // [BufferId] of all programs and phases
  mutable std::mutex saved_mutex_;                    // tensors are released by any thread
  std::map<int64_t, std::vector<at::Tensor>> saved_;  // [BufferId]
  int64_t next_saved_ = 1;
};

template <class Body>
auto Executable::Entry::call(const char* operation, const std::string& kind, Body&& body) const {
  try {
    return communicator_.call(operation, plan_name_ + kind, body);
  } catch (const Error& error) {
    if (rethrow_) rethrow_(error);
    throw;
  }
}

template <class Body>
auto Executable::Entry::check(const char* operation, Body&& body) const {
  try {
    return body();
  } catch (const std::exception& error) {
    communicator_.refuse(operation, error.what());
    if (const auto* own = dynamic_cast<const Error*>(&error); own && rethrow_) rethrow_(*own);
    throw;
  }
}

}  // namespace evenspan::run
