#include "evenspan/calibrate/calibrate.h"

#include <ATen/Parallel.h>
#include <torch/version.h>

#include <cmath>

#include "calibrate/parts.h"
#include "evenspan/core/error.h"

namespace evenspan::calibrate {
namespace {

constexpr int64_t kLeastRows = 4096;  // of the tensors, so that exchanges and copies are large too

int32_t ranks_per_node(const Options& options, int32_t num_ranks) {
  if (num_ranks < 2) fail_invalid("[calibrate] links are measured between ranks, there is 1; give at least 2");
  const int32_t per_node = options.ranks_per_node == 0 ? num_ranks : options.ranks_per_node;
  if (per_node < 1 || num_ranks % per_node != 0) {
    fail_invalid("[calibrate] nodes have equally many ranks, ", num_ranks, " ranks are no nodes of ", per_node,
                 "; start as many on each");
  }
  return per_node;
}

void validate(const Options& options) {
  const auto& shape = options.shape;
  if (shape.num_heads < 1 || shape.num_kv_heads < 1 || shape.num_heads % shape.num_kv_heads != 0 ||
      shape.head_dim < 1) {
    fail_invalid("[calibrate] heads are a multiple of kv heads, and all are positive; there are ", shape.num_heads,
                 " heads, ", shape.num_kv_heads, " kv heads of ", shape.head_dim);
  }
  const Grid grid = grid_of(c10::Device(options.device));
  if (options.longest < grid.first + grid.beyond) {
    fail_invalid("[calibrate] the grid begins at ", grid.first + grid.beyond, " rows, its longest point is ",
                 options.longest, "; give a longer one");
  }
  if (!(options.seconds >= 0) || !std::isfinite(options.seconds)) {
    fail_invalid("[calibrate] the time is not negative, it is ", options.seconds, " s");
  }
}

}  // namespace

Calibration calibrate(const Options& options, const comm::Communicator& communicator, const WorkPart& work) {
  validate(options);
  const int32_t per_node = ranks_per_node(options, communicator.size());
  const c10::Device device(options.device);
  const Workbench workbench(options.shape, std::max(options.longest, kLeastRows), device, communicator);
  Bench bench;
  const AttentionPart attention(workbench, grid_of(device), options.longest, &bench);
  const MemoryPart memory(workbench, &bench);
  const ProductPart products(workbench, device, &bench);
  const LinkPart links(workbench, per_node, &bench);
  bench.measure(communicator, device, options.seconds, work);

  Calibration result;
  simulate::Profile& profile = result.profile;
  profile.name = options.name;
  profile.attention = {attention.finish(bench)};
  memory.finish(bench, &profile);
  products.finish(bench, &profile);
  profile.ranks_per_node = per_node;
  links.finish(bench, &profile);
  simulate::validate(profile);

  const auto& shape = options.shape;
  result.about = join_text(communicator.size(), " ranks, ", per_node, " a node, of ", at::get_num_threads(),
                           " threads on ", device.str(), ", all measured at once with torch ", TORCH_VERSION);
  result.sources = {
      {"times",
       join_text("mean of ", bench.num_rounds(),
                 " rounds without the slowest tenth, and of the ranks; data come from memory, not from caches")},
      {"attention", join_text("the executor's kernels, ", shape.num_heads, " heads and ", shape.num_kv_heads,
                              " kv heads together, divided by the heads; squares are causal")},
      {"attention.segment_seconds", "a segment of one query and one key"},
      {"attention.merge", "segments whose results are merged, less segments whose results are written in place"},
      {"memory", "the executor's copies and additions of whole rows, fitted over sizes"},
      {"flops", "matrix products of 512 tokens, heads x head dimension, and 4 times that"},
      {"links",
       "exchanges each way between neighbours, all ranks at once: of one message, fitted over sizes, and of many"},
      {"exchange", "what kernels lose to an exchange beside them"}};
  return result;
}

}  // namespace evenspan::calibrate
