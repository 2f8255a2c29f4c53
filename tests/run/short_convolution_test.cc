// Short convolutions on thread ranks against padded whole documents: outputs and gradients.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include <mutex>

#include "evenspan/core/error.h"
#include "evenspan/run/linear.h"
#include "gtest/gtest.h"
#include "support/torch/documents_on_ranks.h"

namespace evenspan {
namespace {

using test::distance;
using test::home_rows;
using test::kBatches;
using test::kRanks;
using test::plan_for;

at::Tensor naive_convolution(const at::Tensor& x, const std::vector<int64_t>& lengths, const at::Tensor& weight,
                             const at::Tensor& bias) {
  std::vector<at::Tensor> parts;
  int64_t at_row = 0;
  const int64_t width = weight.size(1);
  for (const int64_t length : lengths) {
    const at::Tensor zeros = at::zeros({width - 1, x.size(1)}, x.options());
    const at::Tensor padded = at::cat({zeros, x.narrow(0, at_row, length)});
    at::Tensor y = bias.expand({length, x.size(1)});
    for (int64_t i = 0; i < width; ++i) y = y + padded.narrow(0, i, length) * weight.select(1, i);
    parts.push_back(y);
    at_row += length;
  }
  return at::cat(parts);
}

TEST(ShortConvolution, EveryWidthPlacementAndNumberOfRanks) {
  for (const char* strategy : {"ring", "zigzag", "all_gather", "sequence_aware"}) {
    for (const int32_t ranks : kRanks) {
      for (const int64_t width : {1, 2, 4, 7}) {
        for (const auto& lengths : kBatches) {
          SCOPED_TRACE(
              join_text(strategy, ", ", ranks, " ranks, width ", width, ", documents of ", at::IntArrayRef(lengths)));
          at::manual_seed(3);
          int64_t n = 0;
          for (const int64_t length : lengths) n += length;
          const auto f64 = at::TensorOptions().dtype(at::kDouble);
          const at::Tensor x = at::randn({n, 6}, f64).requires_grad_(),
                           weight = at::randn({6, width}, f64).requires_grad_();
          const at::Tensor bias = at::randn({6}, f64).requires_grad_(), grad = at::randn({n, 6}, f64);
          const at::Tensor expected = naive_convolution(x, lengths, weight, bias);
          const auto gradients = torch::autograd::grad({expected}, {x, weight, bias}, {grad});
          const auto plan = plan_for(lengths, ranks, strategy, plan::ElementType::f64);
          std::mutex mutex;
          at::Tensor weight_sum = at::zeros_like(weight), bias_sum = at::zeros_like(bias);
          comm::run_threads(ranks, [&](const comm::Communicator& communicator) {
            at::set_num_threads(1);
            const run::Executable executable(plan, communicator);
            const at::Tensor rows = home_rows(*plan, communicator.rank());
            const at::Tensor own = x.detach().index_select(0, rows).requires_grad_();
            const at::Tensor w = weight.detach().clone().requires_grad_(), b = bias.detach().clone().requires_grad_();
            const at::Tensor y = run::short_convolution(own, w, b, executable);
            const auto found = torch::autograd::grad({y}, {own, w, b}, {grad.index_select(0, rows)});
            const std::lock_guard lock(mutex);
            EXPECT_LE(distance(y.detach(), expected.detach().index_select(0, rows)), 1e-12);
            EXPECT_LE(distance(found[0], gradients[0].index_select(0, rows)), 1e-12);
            weight_sum += found[1];
            bias_sum += found[2];
          });
          EXPECT_LE(distance(weight_sum, gradients[1]), 1e-12);
          EXPECT_LE(distance(bias_sum, gradients[2]), 1e-12);
        }
      }
    }
  }
}

// Every document's part of the gradient was a tensor of all rows: the backward pass took the square of the documents,
// here minutes.
TEST(ShortConvolution, ManyDocuments) {
  constexpr int64_t kDocuments = 40'000, kTokens = 4, kChannels = 2, kWidth = 4;
  at::manual_seed(4);
  const auto f64 = at::TensorOptions().dtype(at::kDouble);
  const at::Tensor x = at::randn({kDocuments * kTokens, kChannels}, f64).requires_grad_(),
                   weight = at::randn({kChannels, kWidth}, f64).requires_grad_(), grad = at::randn_like(x);
  const at::Tensor zeros = at::zeros({kDocuments, kWidth - 1, kChannels}, f64);
  const at::Tensor padded = at::cat({zeros, x.view({kDocuments, kTokens, kChannels})}, 1);
  at::Tensor expected = at::zeros({kDocuments, kTokens, kChannels}, f64);
  for (int64_t i = 0; i < kWidth; ++i) expected = expected + padded.narrow(1, i, kTokens) * weight.select(1, i);
  const auto gradients = torch::autograd::grad({expected.view_as(x)}, {x, weight}, {grad});
  const auto plan = plan_for(std::vector<int64_t>(kDocuments, kTokens), 2, "ring", plan::ElementType::f64);
  std::mutex mutex;
  at::Tensor weight_sum = at::zeros_like(weight);
  comm::run_threads(2, [&](const comm::Communicator& communicator) {
    const run::Executable executable(plan, communicator);
    const at::Tensor rows = home_rows(*plan, communicator.rank());
    const at::Tensor own = x.detach().index_select(0, rows).requires_grad_();
    const at::Tensor w = weight.detach().clone().requires_grad_();
    const at::Tensor y = run::short_convolution(own, w, at::Tensor(), executable);
    const auto found = torch::autograd::grad({y}, {own, w}, {grad.index_select(0, rows)});
    const std::lock_guard lock(mutex);
    EXPECT_LE(distance(y.detach(), expected.detach().view_as(x).index_select(0, rows)), 1e-12);
    EXPECT_LE(distance(found[0], gradients[0].index_select(0, rows)), 1e-12);
    weight_sum += found[1];
  });
  EXPECT_LE(distance(weight_sum, gradients[1]), 1e-12);
}

}  // namespace
}  // namespace evenspan
