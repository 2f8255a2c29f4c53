// The placement that planned strategies use: work even, tokens within the slack, and few keys that travel.
#pragma once

#include <vector>

#include "evenspan/plan/placement.h"
#include "evenspan/plan/request.h"

namespace evenspan::plan {

// Spans of every rank of the request. Queries stay at home, so what travels is the keys that a rank's queries see and
// its home lacks: of a causal document at least the sum of its cuts (see evenspan/plan/bound.h), least when each rank
// that holds an end takes as much of it as its work allows. Such ranks have few tokens, so the others have many: as far
// as the token slack allows, then the ends are thinned with light tokens.
//
// Work comes out within 1.003 of the mean where the batch has documents enough to choose from or to cut. Where more
// than 3 % of the keys that a ring moves would travel, or a rank had too many tokens, the placement is improved by
// local search; where that comes near 3 %, ranks may have work up to BalanceLimits to reach it. Deterministic; at most
// 4 fills of O(documents log documents + ranks log^2 tokens), and 4 searches of at most 100,000 moves with a fill each.
std::vector<std::vector<PlacedSpan>> place(const Request& request);

}  // namespace evenspan::plan
