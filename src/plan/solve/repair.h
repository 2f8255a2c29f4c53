// The improving half of the placement solver.
#pragma once

#include <vector>

#include "evenspan/plan/placement.h"
#include "evenspan/plan/request.h"

namespace evenspan::plan {

// Exchanges work for work between the rank with the most tokens and the one with the fewest, light tokens for dense
// ones, until no rank has more than `most_tokens` or nothing helps; at most 4 exchanges a rank.
void repair_tokens(const Request& request, int64_t most_tokens, std::vector<std::vector<PlacedSpan>>* ranks);

}  // namespace evenspan::plan
