// Who finishes which rows of the output, and what travels for that.
#pragma once

#include "evenspan/plan/plan.h"

namespace evenspan::plan {

// Appends the moves of finished outputs to plan->moves, and fills plan->partials. REQUIRES: tasks are sorted by rank.
void add_outputs(Plan* plan);

}  // namespace evenspan::plan
