// The cost model of FlexSP with its published constants (PKU-DAIR/Hetu-Galvatron, branch flexsp): 64 A100 of 40 GB, 8 a
// node. For comparisons with what its paper reports (arXiv 2412.01523).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "evenspan/batch/cost.h"

namespace evenspan::batch {

// A model as its published solver knows it.
struct PublishedModel {
  std::string_view name;      // "7b", "13b", "30b"
  double activation_mib = 0;  // of a token
  double square_ms = 0;       // alpha1
  double token_ms = 0;        // alpha2
  double micro_batch_ms = 0;  // beta1
  int64_t hidden = 0;
  int32_t num_layers = 0;
  double params_192k = 0;  // parameters / 2^30 at a context limit of 192K tokens, and of 384K: learned
  double params_384k = 0;  // position embeddings grow with it
};
std::span<const PublishedModel> published_models();

// The cost on `num_ranks` such GPUs, of which the solver uses 30 GiB each: states are sharded (ZeRO-3, 16 bytes a
// parameter). `context_limit` is the longest document in thousands of tokens; parameters are interpolated between the
// two published limits. Groups of more than 64 ranks have the rate of 64. Throws invalid_argument for other names.
Cost published_cost(std::string_view model, int32_t num_ranks, double context_limit = 192);

// Lengths as the published runs have them: rounded up to a multiple of 128, longer ones than context_limit * 1000 - 128
// left out.
std::vector<int64_t> published_lengths(std::span<const int64_t> lengths, int64_t context_limit = 192);

}  // namespace evenspan::batch
