// The options that say what to plan, the same for every command that plans.
#pragma once

#include <string>
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
  bool quiet = false;
};

// --lengths and --ranks.
void declare_batch(Options* options, RequestArguments* arguments);
// --dtype.
void declare_dtype(Options* options, RequestArguments* arguments);
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

// --quiet.
void declare_quiet(Options* options, RequestArguments* arguments);

// The request for a topology and a cost model. Reads the lengths, once all else is known to be right.
plan::Request read_request(const RequestArguments& arguments, const plan::Topology& topology,
                           const plan::CostModel& cost);

}  // namespace evenspan::cli
