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
  bool simulated = false;       // false: its bound was no better than the best step so far
  double step_seconds = 0;      // simulated or by formula, or the longest bound that was found
};

struct Choice {
  Prediction prediction;                   // `strategy` is the chosen one's
  plan::Options options;                   // that make the chosen plan
  std::shared_ptr<const plan::Plan> plan;  // null when it was predicted by formula
  std::vector<Candidate> candidates;       // planned ones, then uniform ones, of each those simulated first
};

// Of `mixed` and `hierarchical` with every number of ranks a group that divides the ranks and fits in a node, `mixed`
// also with groups of 2, 4, 8, ... nodes, `sequence_aware`, `local` and `disaggregated`, the plan with the shortest
// simulated step; of the uniform strategies each whose bound_by_formula() is shorter, too. A candidate is simulated
// unless some bound of its step says that it is no shorter than the best step so far: of its draft, of its plan, or of
// what its ranks compute, each found for the candidates with the least bounds only. No bound is above the step that it
// is of, but for rounding. So the choice is never worse, in the model, than any of the candidates, nor than any uniform
// strategy. Strategies without a formula for the masks or the model's windows are candidates on at most
// kMostUniformRanks ranks and left out beyond. Deterministic, in one thread. REQUIRES: as predict().
Choice choose(const plan::Request& request, const Scenario& scenario, Timeline timeline = Timeline::skip,
              const WorkPart& work = {});

}  // namespace evenspan::simulate
