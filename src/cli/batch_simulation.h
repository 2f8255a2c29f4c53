// Steps of global batches as the simulator runs their programs, beside the sums by which they were planned.
#pragma once

#include <cstdint>
#include <span>

#include "evenspan/batch/step.h"
#include "evenspan/core/work_part.h"
#include "evenspan/simulate/prediction.h"

namespace evenspan::cli {

// Seconds of all micro-batches, one after another, each as long as its slowest rank's programs.
struct SimulatedStep {
  double placed_seconds = 0;  // every document on the ranks that the planner gave it, which share its heads
  double mixed_seconds = 0;   // the same micro-batches, their documents placed by the strategy mixed
  double auto_seconds = 0;    // the same, each with the plan that simulate::choose() takes
};

// Throws as plan::make_plan() and simulate::predict().
SimulatedStep simulate_step(const batch::StepPlan& plan, std::span<const int64_t> lengths,
                            const simulate::Scenario& scenario, const WorkPart& work);

}  // namespace evenspan::cli
