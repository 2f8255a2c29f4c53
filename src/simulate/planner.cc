#include "evenspan/simulate/planner.h"

#include <algorithm>
#include <utility>

#include "evenspan/core/error.h"
#include "evenspan/simulate/formula.h"
#include "evenspan/simulate/layers.h"

namespace evenspan::simulate {
namespace {

plan::Request with(plan::Request request, const Candidate& candidate) {
  request.options.strategy = candidate.strategy;
  request.options.ranks_per_group = candidate.ranks_per_group;
  return request;
}

bool has_plan(const Candidate& candidate, int32_t num_ranks) {
  return num_ranks <= kMostUniformRanks || !has_formula(candidate.strategy);
}

std::string name_of(const Candidate& candidate) {
  return candidate.ranks_per_group > 0
             ? join_text(candidate.strategy, " with ", candidate.ranks_per_group, " ranks a group")
             : candidate.strategy;
}

// The rank that needs most memory in a layer of the plan, when operands are kept for backward or moved again, and
// fetched for all rounds at once or for one ahead, whichever is least.
struct Memory {
  int64_t bytes = 0;
  int32_t rank = 0;
};
Memory least_memory(const plan::Plan& plan) {
  const auto most = [](const plan::Plan& of) {
    Memory memory;
    for (int32_t r = 0; r < of.request.num_ranks(); ++r) {
      const plan::RankProgram program = plan::lower(of, Rank(r));
      const int64_t bytes = program.bytes(plan::Lifetime::phase) + program.bytes(plan::Lifetime::step);
      if (bytes > memory.bytes) memory = {bytes, r};
    }
    return memory;
  };
  Memory least = most(plan);
  plan::Plan frugal = plan;
  for (bool plan::Plan::*luxury : {&plan::Plan::keep_operands, &plan::Plan::prefetch_all}) {
    if (!(frugal.*luxury)) continue;
    frugal.*luxury = false;
    const Memory memory = most(frugal);
    if (memory.bytes < least.bytes) least = memory;
  }
  return least;
}

// The same in any softmax layer of the model.
Memory least_memory(const plan::Plan& plan, const Model& model) {
  Memory most = least_memory(plan);
  for (const LayerPlan& other : layers_of_plan(plan, model).others) {
    const Memory memory = least_memory(*other.plan);
    if (memory.bytes > most.bytes) most = memory;
  }
  return most;
}

}  // namespace

Scenario scenario_of_run(const Profile& profile, const Model& model, Machine machine) {
  validate(model);
  attention_times(profile, model.shape);
  return Scenario{std::move(machine), profile, model};
}

Choice choose_within_budget(const plan::Request& request, const Scenario& scenario, Timeline timeline,
                            const WorkPart& work) {
  const int64_t budget = request.options.memory_budget_bytes;
  if (budget <= 0) return choose(request, scenario, timeline, work);
  plan::Request unlimited = request;
  unlimited.options.memory_budget_bytes = 0;
  Choice choice;
  Memory tightest;
  std::string tightest_name;
  std::vector<Candidate> candidates = choose(unlimited, scenario, Timeline::skip, work.part(0, 2)).candidates;
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.step_seconds < b.step_seconds; });
  int64_t num_seen = 0;
  for (const Candidate& candidate : candidates) {
    const WorkPart part = work.part(1, 2).part(num_seen++, static_cast<int64_t>(candidates.size()));
    if (!has_plan(candidate, request.num_ranks())) continue;
    if (!candidate.simulated && choice.plan != nullptr && candidate.step_seconds >= choice.prediction.step_seconds) {
      choice.candidates.push_back(candidate);
      continue;
    }
    const Memory memory = least_memory(*plan::make_plan(with(unlimited, candidate)), scenario.model);
    if (tightest_name.empty() || memory.bytes < tightest.bytes) {
      tightest = memory;
      tightest_name = name_of(candidate);
    }
    if (memory.bytes > budget) continue;
    auto plan = plan::make_plan(with(request, candidate));
    Prediction prediction = predict(*plan, scenario, timeline, part);
    choice.candidates.push_back(
        {candidate.strategy, candidate.ranks_per_group, /*simulated=*/true, prediction.step_seconds});
    if (choice.plan != nullptr && prediction.step_seconds >= choice.prediction.step_seconds) continue;
    choice.options = plan->request.options;
    choice.prediction = std::move(prediction);
    choice.plan = std::move(plan);
  }
  if (choice.plan == nullptr) {
    fail(ErrorKind::resource, "[plan] no candidate of auto keeps the memory budget of ", budget,
         " bytes; the least is ", tightest_name, ", which needs ", tightest.bytes,
         " bytes of arena and saved activations on rank ", tightest.rank, "; raise the budget, or use more ranks");
  }
  return choice;
}

void weigh(const Scenario& scenario, plan::Request* request) {
  request->topology = scenario.machine.topology;
  request->cost = cost_model(scenario.profile, scenario.model);
  plan_for_layers(scenario.model, request);
}

RunnablePlan plan_to_run(plan::Request request, const Scenario* scenario, const WorkPart& work) {
  const bool chooses = request.options.strategy == kAuto;
  if (chooses && scenario == nullptr) {
    fail_invalid("[plan] the strategy auto simulates the machine, and no profile is given; name a profile");
  }
  if (scenario != nullptr) weigh(*scenario, &request);
  if (!chooses) return {plan::make_plan(std::move(request)), std::nullopt, ""};
  plan::validate(request);
  RunnablePlan out;
  out.choice = choose_within_budget(request, *scenario, Timeline::skip, work);
  out.plan = out.choice->plan;
  if (out.plan != nullptr) return out;
  const Candidate* best = nullptr;
  for (const Candidate& candidate : out.choice->candidates) {
    if (!candidate.simulated || !has_plan(candidate, request.num_ranks())) continue;
    if (best == nullptr || candidate.step_seconds < best->step_seconds) best = &candidate;
  }
  out.plan = plan::make_plan(with(request, *best));
  out.note = join_text("the shortest step is that of ", out.choice->options.strategy, ", ",
                       1e3 * out.choice->prediction.step_seconds, " ms by its formula, of which no plan is written on ",
                       request.num_ranks(), " ranks; this is the plan of ", name_of(*best), ", ",
                       1e3 * best->step_seconds, " ms");
  return out;
}

}  // namespace evenspan::simulate
