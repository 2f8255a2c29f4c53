// The strategy `auto`: the plan whose step the simulator finds shortest.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "evenspan/simulate/prediction.h"

namespace evenspan::simulate {

// A strategy that was looked at.
struct Candidate {
  std::string strategy;
  int32_t ranks_per_group = 0;  // of mixed and hierarchical
  bool simulated = false;       // false: its bound was no better than the best plan so far
  double step_seconds = 0;      // simulated or by formula, or the bound
};

struct Choice {
  Prediction prediction;                   // `strategy` is the chosen one's
  plan::Options options;                   // that make the chosen plan
  std::shared_ptr<const plan::Plan> plan;  // null when it was predicted by formula
  std::vector<Candidate> candidates;       // in the order in which they were looked at
};

// Plans `mixed` and `hierarchical` with every number of ranks a group that divides the ranks and fits in a node,
// `mixed` also with groups of 2, 4, 8, ... nodes, `sequence_aware`, `local` and `disaggregated`, and simulates each
// whose busiest_rank_bound() beats the best so far; then each uniform strategy whose bound_by_formula() does, too. So
// the choice is never worse, in the model, than any uniform strategy. Strategies without a formula for the masks or the
// model's windows are simulated on at most kMostUniformRanks ranks and left out beyond. Deterministic. REQUIRES: as
// predict().
Choice choose(const plan::Request& request, const Scenario& scenario, Timeline timeline = Timeline::skip,
              const WorkPart& work = {});

}  // namespace evenspan::simulate
