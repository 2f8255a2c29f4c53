// What `evenspan explain` prints and writes.
#pragma once

#include <string>

#include "evenspan/simulate/explain.h"
#include "evenspan/simulate/planner.h"

namespace evenspan::cli {

// About a screen, whatever the batch: documents that went the same way are one line, and only the first of these lines
// are printed. `planned` holds the plan that was explained.
std::string explanation_text(const simulate::Scenario& scenario, const simulate::RunnablePlan& planned,
                             const simulate::Explanation& explanation);

// One object with all groups, described in docs/simulator.md.
std::string explanation_json(const simulate::Scenario& scenario, const simulate::RunnablePlan& planned,
                             const simulate::Explanation& explanation);

}  // namespace evenspan::cli
