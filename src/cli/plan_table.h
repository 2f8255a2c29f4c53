// The short table that `evenspan plan` prints.
#pragma once

#include <string>

#include "evenspan/plan/plan.h"

namespace evenspan::cli {

// A line on the request, one for each rank, and the totals beside what a ring would have sent.
std::string plan_table(const plan::Plan& plan, const plan::Metrics& metrics, const plan::Mask& mask,
                       double planning_seconds);

}  // namespace evenspan::cli
