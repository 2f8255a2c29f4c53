// The placement of the strategy `mixed`: documents over groups of ranks, and inside a group the short ones whole on one
// rank each, the long ones on all of its ranks.
#pragma once

#include <vector>

#include "evenspan/plan/placement.h"
#include "evenspan/plan/request.h"

namespace evenspan::plan {

struct MixedPlacement {
  std::vector<std::vector<PlacedSpan>> homes;   // [rank]
  std::vector<std::vector<PlacedSpan>> shared;  // [group]: spans whose heads the ranks of the group split, sorted
};

// Tokens and attention are even each for itself, not only their sum: in every layer a rank gets the keys of other ranks
// only when their token-wise layers are done, so a rank with little of the one and much of the other would wait.
//
// Between groups: the largest documents are cut, as few as make the groups even. A cut document gives a group a chunk
// from its beginning and the mirrored one from its end, so that any share of its tokens has the same share of a causal
// mask's pairs: work that divides like water. The densest lie together with the lightest of the others. The rest is
// dealt whole. Inside a group: as few of the largest as make its ranks even are shared (their heads are split, and
// their tokens lie where a rank has room), where sharing them does not cost more in transfers than it saves. REQUIRES:
// `ranks_per_group` divides the ranks. Deterministic; O(documents x (groups + ranks_per_group)) a round.
MixedPlacement place_mixed(const Request& request, int32_t ranks_per_group);

}  // namespace evenspan::plan
