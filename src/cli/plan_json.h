// The JSON form of a plan.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "evenspan/core/work_part.h"
#include "evenspan/plan/plan.h"
#include "evenspan/simulate/prediction.h"

namespace evenspan::cli {

// What a plan is expected to cost.
struct PlanForecast {
  std::optional<double> modelled_seconds;     // of the whole model's step
  std::optional<double> lower_bound_seconds;  // of any plan's step
  int64_t peak_arena_bytes = 0;               // most on a rank in either pass
  std::vector<int64_t> sent_bytes_by_level;   // [level of the topology] of one layer's forward, all ranks together
};
// Without a scenario no seconds. REQUIRES: the scenario has the plan's ranks and shape.
PlanForecast forecast(const plan::Plan& plan, const simulate::Scenario* scenario, const WorkPart& work);

// One object, described in docs/plan_format.md; a line for each key, and for each rank of `placement` and `tiles`.
// `mask` is the mask of all documents.
std::string plan_json(const plan::Plan& plan, const plan::Metrics& metrics, const PlanForecast& forecast,
                      const plan::Mask& mask, double planning_seconds);

}  // namespace evenspan::cli
