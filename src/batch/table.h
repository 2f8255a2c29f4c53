// The functions that the table of planners lists, one file each.
#pragma once

#include "evenspan/batch/planner.h"

namespace evenspan::batch {

PlannedStep plan_static(std::span<const int64_t>, const Cost&, const PlannerOptions&, const SolverSource&);
PlannedStep plan_homogeneous(std::span<const int64_t>, const Cost&, const PlannerOptions&, const SolverSource&);
PlannedStep plan_flexsp(std::span<const int64_t>, const Cost&, const PlannerOptions&, const SolverSource&);
PlannedStep plan_evenspan(std::span<const int64_t>, const Cost&, const PlannerOptions&, const SolverSource&);
PlannedStep plan_megatron_hybrid(std::span<const int64_t>, const Cost&, const PlannerOptions&, const SolverSource&);
PlannedStep plan_megatron_dynamic(std::span<const int64_t>, const Cost&, const PlannerOptions&, const SolverSource&);
PlannedStep plan_wlb(std::span<const int64_t>, const Cost&, const PlannerOptions&, const SolverSource&);
PlannedStep plan_skrull(std::span<const int64_t>, const Cost&, const PlannerOptions&, const SolverSource&);
PlannedStep plan_bytescale(std::span<const int64_t>, const Cost&, const PlannerOptions&, const SolverSource&);

}  // namespace evenspan::batch
