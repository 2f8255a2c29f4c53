// The improving half of the placement solver.
#pragma once

#include <cstdint>
#include <vector>

#include "evenspan/plan/placement.h"
#include "evenspan/plan/request.h"

namespace evenspan::plan {

// What a placement should keep.
struct PlacementGoal {
  double most_work = 0;     // of a rank, in the request's cost model
  int64_t most_tokens = 0;  // of a rank
  int64_t few_keys = 0;     // tokens whose keys and values travel
};

// What a placement does keep.
struct PlacementState {
  double most_work = 0;
  int64_t most_tokens = 0;
  int64_t keys = 0;

  bool within_limits(const PlacementGoal& goal) const {
    return most_work <= goal.most_work && most_tokens <= goal.most_tokens;
  }
  bool reaches(const PlacementGoal& goal) const { return within_limits(goal) && keys <= goal.few_keys; }
};

PlacementState state_of(const Request& request, const std::vector<std::vector<PlacedSpan>>& ranks);

// Threshold accepting (Dueck and Scheuer 1990, with random thresholds) over keys that travel, where work and tokens
// above the limits cost keys too: at most `moves` are tried, until the goal is reached. A move exchanges spans of two
// ranks, gives one away, or a part of one; or it shifts the cut between two neighbours in a document so that the upper
// one has all the work that it may have after it gave the lower one another span. Deterministic on every machine: the
// random numbers have a fixed seed, and no function of a mathematical library is called.
void improve(const Request& request, const PlacementGoal& goal, int64_t moves,
             std::vector<std::vector<PlacedSpan>>* ranks);

}  // namespace evenspan::plan
