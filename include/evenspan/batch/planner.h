// Planners of global batches: which documents go together into a micro-batch, and on which ranks each lies.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "evenspan/batch/cost.h"
#include "evenspan/batch/milp.h"
#include "evenspan/batch/step.h"

namespace evenspan::batch {

struct PlannerOptions {
  // flexsp: the seconds that a micro-batch's program may take; above 0.
  double solver_seconds = 10;
  // flexsp: the groups that exist are those of the published code, which leaves out groups of one rank and more small
  // groups than fit beside the largest that the documents need; without, all that fit, as the paper has it.
  bool prune_slots = true;
  // static: the ranks of every group, a power of two; 0: the most that there is.
  int32_t static_degree = 0;
};

struct PlannedStep {
  StepPlan plan;
  int64_t num_programs = 0;  // that a solver was given
  int64_t num_proven = 0;    // of these, solved to the end
};

// Makes a planner's program solver when it is first needed. Throws resource where there is none.
using SolverSource = std::function<MilpSolver&()>;

struct Planner {
  std::string_view name;
  std::string_view summary;
  PlannedStep (*plan)(std::span<const int64_t> lengths, const Cost& cost, const PlannerOptions& options,
                      const SolverSource& solver);
  // The fields of PlannerOptions that it reads, with spaces between them; empty: none. One that reads solver_seconds
  // uses the solver.
  std::string_view options;
};

// In the order in which they are listed to users.
std::span<const Planner> planners();

// Throws invalid_argument with the nearest name.
const Planner& find_planner(std::string_view name);

// Checks the cost and the documents, plans and holds the plan against find_fault(). Deterministic but for planners that
// use a solver, which a clock stops. Throws as validate(), check_documents() and the planner.
PlannedStep plan_step(const Planner& planner, std::span<const int64_t> lengths, const Cost& cost,
                      const PlannerOptions& options, const SolverSource& solver);

}  // namespace evenspan::batch
