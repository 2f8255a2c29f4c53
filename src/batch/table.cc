#include "batch/table.h"

#include <array>
#include <string>

#include "evenspan/core/error.h"
#include "evenspan/core/nearest.h"

namespace evenspan::batch {
namespace {

constexpr std::array<Planner, 9> kPlanners = {{
    {"auto", "composition, number and placement of micro-batches together, documents cut where that evens ranks",
     plan_evenspan, ""},
    {"flexsp", "FlexSP: groups of powers of two for each micro-batch, by a mixed-integer program", plan_flexsp,
     "solver_seconds prune_slots"},
    {"homogeneous", "groups of one size, the best for each step", plan_homogeneous, ""},
    {"static", "groups of one size, always the same", plan_static, "static_degree"},
    {"megatron_hybrid", "Megatron-LM: each document on the fewest ranks, micro-batches closed when ranks are even",
     plan_megatron_hybrid, ""},
    {"megatron_dynamic",
     "Megatron-LM: a document on more ranks than it needs where that lowers the most work of a rank",
     plan_megatron_dynamic, ""},
    {"wlb", "WLB-LLM: packs of even work, every document cut over all ranks of a group of one size", plan_wlb, ""},
    {"skrull", "Skrull: documents local or distributed in groups of one size, long and short mixed", plan_skrull, ""},
    {"bytescale", "ByteScale: documents on any number of ranks, work to the ranks that are behind", plan_bytescale, ""},
}};

}  // namespace

std::span<const Planner> planners() { return kPlanners; }

const Planner& find_planner(std::string_view name) {
  std::vector<std::string> names;
  for (const Planner& planner : kPlanners) {
    if (planner.name == name) return planner;
    names.emplace_back(planner.name);
  }
  fail_invalid("[batch] there is no planner \"", name, "\"", there_are(name, names));
}

PlannedStep plan_step(const Planner& planner, std::span<const int64_t> lengths, const Cost& cost,
                      const PlannerOptions& options, const SolverSource& solver) {
  validate(cost);
  check_documents(lengths, cost);
  PlannedStep step = planner.plan(lengths, cost, options, solver);
  EVENSPAN_CHECK_EQ(find_fault(step.plan, lengths, cost), "");
  return step;
}

}  // namespace evenspan::batch
