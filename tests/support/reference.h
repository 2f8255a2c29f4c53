// Attention of packed documents by the definition, in float64, and its gradients: what every plan must equal.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <mutex>

#include "evenspan/comm/communicator.h"
#include "evenspan/plan/plan.h"
#include "evenspan/run/executable.h"
#include "run/entry.h"
#include "support/torch/documents_on_ranks.h"

namespace evenspan::test {

struct Inputs {
  at::Tensor query, key, value, grad_output;  // [tokens of the batch, heads, dim], document after document
};
struct Outputs {
  at::Tensor output, grad_query, grad_key, grad_value;
};

inline Inputs make_inputs(const plan::Request& request, int64_t seed, at::ScalarType type) {
  at::Generator generator = at::globalContext().defaultGenerator(at::kCPU).clone();
  generator.set_current_seed(static_cast<uint64_t>(seed));
  const int64_t tokens = request.documents.total_tokens();
  const auto tensor = [&](int64_t heads) {
    return at::randn({tokens, heads, request.shape.head_dim}, generator, at::kDouble).to(type);
  };
  return {tensor(request.shape.num_heads), tensor(request.shape.num_kv_heads), tensor(request.shape.num_kv_heads),
          tensor(request.shape.num_heads)};
}

inline Outputs reference(const plan::Request& request, const Inputs& inputs) {
  const auto leaf = [](const at::Tensor& x) { return x.to(at::kDouble).detach().clone().requires_grad_(true); };
  const at::Tensor query = leaf(inputs.query), key = leaf(inputs.key), value = leaf(inputs.value);
  std::vector<at::Tensor> outputs;
  int64_t row = 0;
  for (const plan::Document& document : request.documents.all()) {
    const int64_t n = document.length, group = request.shape.group_size();
    at::Tensor mask = at::full({n, n}, -std::numeric_limits<double>::infinity(), at::kDouble);
    for (int64_t q = 0; q < n; ++q) {
      const Span keys = plan::allowed_keys(document, q);
      mask[q].narrow(0, keys.begin, keys.size()).zero_();
    }
    const auto part = [&](const at::Tensor& x, int64_t repeats) {
      return x.narrow(0, row, n).repeat_interleave(repeats, 1).transpose(0, 1);
    };
    const at::Tensor scores =
        at::matmul(part(query, 1), part(key, group).transpose(1, 2)) / std::sqrt(request.shape.head_dim) + mask;
    outputs.push_back(at::matmul(scores.softmax(-1), part(value, group)).transpose(0, 1));
    row += n;
  }
  const at::Tensor output = at::cat(outputs);
  output.backward(inputs.grad_output.to(at::kDouble));
  return {output.detach(), query.grad(), key.grad(), value.grad()};
}

// The device of the sweep: --device=NAME on the command line, else the CPU.
inline at::Device test_device() {
  for (const std::string& argument : testing::internal::GetArgvs()) {
    if (argument.starts_with("--device=")) return at::Device(argument.substr(9));
  }
  return at::Device(at::kCPU);
}

struct RunOptions {
  at::Device device = test_device();
  std::shared_ptr<comm::Recorded> recorded;  // of all ranks, where given
};

// Runs the plan on thread ranks, forward and backward, and puts the results together.
inline Outputs run_plan(const std::shared_ptr<const plan::Plan>& plan, const Inputs& inputs, RunOptions options = {}) {
  Outputs all{at::empty_like(inputs.query), at::empty_like(inputs.query), at::empty_like(inputs.key),
              at::empty_like(inputs.value)};
  std::mutex mutex;
  comm::run_threads(plan->request.num_ranks(), [&](const comm::Communicator& threads) {
    at::set_num_threads(1);
    auto recorded = std::make_shared<comm::Recorded>();
    const comm::Communicator communicator =
        options.recorded ? comm::make_recording_communicator(threads, recorded) : threads;
    const at::Tensor rows = home_rows(*plan, communicator.rank());
    const auto local = [&](const at::Tensor& x) {
      return x.index_select(0, rows).to(options.device).detach().requires_grad_(true);
    };
    const at::Tensor query = local(inputs.query), key = local(inputs.key), value = local(inputs.value);
    const run::Executable executable(plan, communicator, options.device);
    const at::Tensor grad_output = inputs.grad_output.index_select(0, rows).to(options.device);
    Outputs mine;
    if (options.device.is_cpu()) {
      mine.output = run::attention(query, key, value, executable);
      mine.output.backward(grad_output);
      mine = {mine.output.detach(), query.grad(), key.grad(), value.grad()};
    } else {
      // Autograd runs the backward work of one device on one thread: ranks that share it call backward themselves.
      const auto forward = executable.entry()->forward(query, key, value);
      const auto gradients =
          executable.entry()->backward(grad_output, query, key, value, forward.output, forward.saved);
      mine = {forward.output, gradients.query, gradients.key, gradients.value};
    }
    const std::lock_guard lock(mutex);
    if (options.recorded) {
      options.recorded->sends.insert(options.recorded->sends.end(), recorded->sends.begin(), recorded->sends.end());
    }
    for (const auto part : {&Outputs::output, &Outputs::grad_query, &Outputs::grad_key, &Outputs::grad_value}) {
      (all.*part).index_copy_(0, rows, (mine.*part).cpu());
    }
  });
  return all;
}

}  // namespace evenspan::test
