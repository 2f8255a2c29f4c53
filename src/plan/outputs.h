// Who finishes which rows of the output, and what travels for that.
#pragma once

#include "evenspan/plan/plan.h"

namespace evenspan::plan {

// Returns the moves of finished outputs, sorted, and fills plan->partials. REQUIRES: tasks are sorted by rank.
std::vector<Move> find_outputs(Plan* plan);

}  // namespace evenspan::plan
