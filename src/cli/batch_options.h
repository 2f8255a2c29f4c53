// The options of `evenspan batch`.
#pragma once

#include <string>
#include <vector>

#include "cli/global_batches.h"
#include "cli/scenario_options.h"
#include "evenspan/batch/planner.h"
#include "evenspan/batch/published.h"

namespace evenspan::cli {

struct BatchArguments {
  RequestArguments request;  // lengths, ranks, ranks_per_node, dtype and quiet of it
  ScenarioArguments scenario;
  GlobalBatchArguments batches;
  batch::PlannerOptions knobs;
  std::string planners = "auto,homogeneous,static", states = "optimizer", constants, highs, json, html;
  int64_t memory_bytes = 0;     // of a rank
  int64_t context_limit = 192;  // thousands of tokens
  bool published_lengths = false, paper_slots = false, no_times = false, simulates = false;
};

void declare_batch_options(Options* options, BatchArguments* arguments);

// The planners of --planner, in its order. Sets knobs.prune_slots. Throws for what is missing, contradicts itself or
// has no effect, and for outputs that cannot be written. Reads nothing.
std::vector<const batch::Planner*> check_batch_options(const Options& options, BatchArguments* arguments);

// "flexsp-7b".
std::string constants_name(const batch::PublishedModel& model);
// The model of such a name: "7b". Throws invalid_argument with the nearest name.
std::string published_model_of(const std::string& constants);

}  // namespace evenspan::cli
