// Plans to run: `auto` within a memory budget, and where the shortest step has no plan.
#include "evenspan/simulate/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "evenspan/core/error.h"
#include "evenspan/plan/program.h"
#include "plan/strategy/strategy.h"
#include "scenarios.h"

namespace evenspan::simulate {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

plan::Request request_of_lengths(const Scenario& scenario, const std::vector<int64_t>& lengths) {
  plan::Request request;
  request.documents = plan::Documents(lengths, plan::Mask{});
  request.shape = scenario.model.shape;
  request.topology = scenario.machine.topology;
  request.cost = cost_model(scenario.profile, scenario.model);
  request.options.strategy = kAuto;
  return request;
}

int64_t memory_of(const plan::Plan& plan) {
  int64_t most = 0;
  for (int32_t r = 0; r < plan.request.num_ranks(); ++r) {
    const plan::RankProgram program = plan::lower(plan, Rank(r));
    most = std::max(most, program.bytes(plan::Lifetime::phase) + program.bytes(plan::Lifetime::step));
  }
  return most;
}

std::string error_of(const plan::Request& request, const Scenario* scenario) {
  try {
    plan_to_run(request, scenario);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Planner, AutoIsChooseAndRecordsWhatMadeThePlan) {
  const Scenario scenario = test::scenario_of(8, {2e-6, 1e8, 0, 0});
  const plan::Request request = request_of_lengths(scenario, {3000, 500, 70});
  const RunnablePlan planned = plan_to_run(request, &scenario);
  const Choice choice = choose(request, scenario);
  EXPECT_EQ(planned.plan->hash, choice.plan->hash);
  EXPECT_EQ(planned.plan->request.options, choice.options);
  EXPECT_EQ(planned.note, "");
  plan::Request again = planned.plan->request;  // what ranks compare names the strategy, not auto
  EXPECT_EQ(plan::make_plan(again)->hash, planned.plan->hash);
}

TEST(Planner, AProfileSetsTheCostModelAndTheLinksOfAnyStrategy) {
  const Scenario scenario = test::scenario_of(4, {2e-6, 1e8, 0, 0});
  plan::Request request = request_of_lengths(scenario, {3000, 500, 70});
  request.options.strategy = "sequence_aware";
  request.cost = plan::CostModel{};
  request.topology = plan::make_topology(4);
  const RunnablePlan planned = plan_to_run(request, &scenario);
  EXPECT_EQ(planned.plan->request.cost, cost_model(scenario.profile, scenario.model));
  EXPECT_EQ(planned.plan->request.topology, scenario.machine.topology);
  EXPECT_FALSE(planned.choice.has_value());
  EXPECT_EQ(plan_to_run(request, nullptr).plan->request.cost, plan::CostModel{});
}

TEST(Planner, AutoKeepsTheBudgetAndIsTheBestThatDoes) {
  const Scenario scenario = test::scenario_of(8, {2e-6, 4e9, 0, 0});
  plan::Request request = request_of_lengths(scenario, {3000, 500, 70});
  const int64_t unlimited = memory_of(*plan_to_run(request, &scenario).plan);
  int num_kept = 0;
  for (const int64_t budget : {unlimited, unlimited / 2, unlimited / 4}) {
    request.options.memory_budget_bytes = budget;
    double best = -1;
    for (const plan::Strategy& strategy : plan::strategies()) {
      plan::Request one = request;
      one.options.strategy = std::string(strategy.name);
      try {
        const double step = predict(*plan::make_plan(one), scenario).step_seconds;
        best = best < 0 ? step : std::min(best, step);
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::resource);
      }
    }
    if (best < 0) continue;  // hierarchical with other groups may fit nevertheless
    ++num_kept;
    const RunnablePlan planned = plan_to_run(request, &scenario);
    EXPECT_LE(memory_of(*planned.plan), budget);
    EXPECT_EQ(planned.plan->request.options.memory_budget_bytes, budget);
    EXPECT_LE(planned.choice->prediction.step_seconds, best);
  }
  EXPECT_GE(num_kept, 1);
}

TEST(Planner, ABudgetThatNothingKeepsNamesWhatNeedsLeast) {
  const Scenario scenario = test::scenario_of(8, {2e-6, 4e9, 0, 0});
  plan::Request request = request_of_lengths(scenario, {3000, 500, 70});
  request.options.memory_budget_bytes = 1000;
  const std::string error = error_of(request, &scenario);
  EXPECT_THAT(error, AllOf(HasSubstr("no candidate of auto keeps the memory budget of 1000 bytes; the least is "),
                           HasSubstr(" bytes of arena and saved activations on rank ")));
  const size_t at = error.find("which needs ") + std::string("which needs ").size();
  request.options.memory_budget_bytes = std::stoll(error.substr(at));
  EXPECT_NE(plan_to_run(request, &scenario).plan, nullptr);
  --request.options.memory_budget_bytes;
  EXPECT_THAT(error_of(request, &scenario), HasSubstr("no candidate of auto"));
}

TEST(Planner, AutoNeedsAMachine) {
  const Scenario scenario = test::scenario_of(2, {2e-6, 4e9, 0, 0});
  EXPECT_THAT(error_of(request_of_lengths(scenario, {30}), nullptr), HasSubstr("no profile is given; name a profile"));
}

// Where links cost nothing ulysses, which computes whole documents, is the shortest; on so many ranks it is a formula.
TEST(Planner, AShortestStepWithoutAPlanIsSaid) {
  Scenario scenario = test::scenario_of(72, {0, 1e15, 0, 0});
  scenario.model.shape.num_heads = scenario.model.shape.num_kv_heads = 72;
  scenario.machine.links[0] = {0, 1e15, 0, 0};
  const RunnablePlan planned = plan_to_run(request_of_lengths(scenario, {5000, 100}), &scenario);
  ASSERT_NE(planned.plan, nullptr);
  ASSERT_EQ(planned.choice->plan, nullptr);
  EXPECT_THAT(planned.note, AllOf(HasSubstr("the shortest step is that of " + planned.choice->options.strategy),
                                  HasSubstr("of which no plan is written on 72 ranks; this is the plan of " +
                                            planned.plan->request.options.strategy)));
}

}  // namespace
}  // namespace evenspan::simulate
