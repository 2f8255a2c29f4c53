// The options that say what to plan, the same for every command that plans.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "cli/options.h"
#include "evenspan/plan/request.h"

namespace evenspan::cli {

struct RequestArguments {
  std::string lengths, dtype = "bf16", mask = "causal";
  int32_t ranks = 0;
  int32_t ranks_per_node = 0;
  plan::AttentionShape shape{32, 8, 128, plan::ElementType::bf16};
  plan::Options knobs;
};

// --lengths and --ranks.
void declare_batch(Options* options, RequestArguments* arguments);
// --heads, --kv-heads, --head-dim, --dtype and --mask.
void declare_attention(Options* options, RequestArguments* arguments);
// What plan::Options holds, but for the strategy.
void declare_knobs(Options* options, RequestArguments* arguments);

// "local, ring, ...".
std::string strategy_names();

// Refuses an option that changes nothing with any of the strategies: it is a mistake of the user. Only --token-slack
// may stand in scripts that try every strategy: a note on standard error says that it is idle; `command` is "evenspan
// plan".
void check_idle_knobs(const Options& options, const std::vector<std::string>& strategies, const std::string& command);

// Refuses two outputs (option and file; an empty file is none) that go to the same file.
void refuse_same_output(const std::vector<std::pair<std::string, std::string>>& outputs);

// The request without its topology. Reads the lengths.
plan::Request read_request(const RequestArguments& arguments, const plan::Mask& mask);

}  // namespace evenspan::cli
