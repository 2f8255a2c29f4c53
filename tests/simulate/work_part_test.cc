// What long work tells of how far it is: shares that grow to the whole, from computing layers that know no clock.
#include "evenspan/core/work_part.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "evenspan/plan/verify.h"
#include "evenspan/simulate/explain.h"
#include "evenspan/simulate/planner.h"
#include "scenarios.h"

namespace evenspan::simulate {
namespace {

using ::testing::ElementsAre;

TEST(WorkPart, TellsItsShareOfTheWhole) {
  std::vector<double> told;
  const WorkPart whole([&told](double done) { told.push_back(done); });
  whole.part(1, 2).part(0, 4).tell(1, 2);
  whole.tell(3, 4);
  WorkPart().part(0, 3).tell(1, 1);  // nobody
  EXPECT_THAT(told, ElementsAre(0.5625, 0.75));
}

plan::Request request_of(const Scenario& scenario) {
  plan::Request request;
  request.documents = plan::Documents({3000, 500, 70}, plan::Mask{});
  request.shape = scenario.model.shape;
  request.topology = scenario.machine.topology;
  request.cost = cost_model(scenario.profile, scenario.model);
  return request;
}

// Told shares never shrink, are in [0, 1], and there are at least so many different ones.
void expect_told(size_t least, const std::function<void(const WorkPart&)>& work) {
  std::vector<double> told;
  work(WorkPart([&told](double done) { told.push_back(done); }));
  EXPECT_TRUE(std::is_sorted(told.begin(), told.end()));
  ASSERT_FALSE(told.empty());
  EXPECT_GE(told.front(), 0);
  EXPECT_LE(told.back(), 1);
  EXPECT_GE(std::set<double>(told.begin(), told.end()).size(), least);
}

TEST(WorkPart, IsToldByWhateverTakesLongOnManyRanks) {
  const Scenario scenario = test::scenario_of(8, {2e-6, 1e8, 0, 0});
  const plan::Request request = request_of(scenario);
  const auto plan = plan::make_plan(request);
  expect_told(8, [&](const WorkPart& work) { predict(*plan, scenario, Timeline::skip, work); });
  expect_told(16, [&](const WorkPart& work) { explain(*plan, scenario, work); });
  expect_told(40, [&](const WorkPart& work) { choose(request, scenario, Timeline::skip, work); });
  const plan::LoweredPlan lowered = plan::lower_all(*plan);
  expect_told(4, [&](const WorkPart& work) { EXPECT_THAT(plan::verify(lowered, work), ElementsAre()); });
  plan::Request tight = request;
  tight.options.strategy = kAuto;
  tight.options.memory_budget_bytes = int64_t{1} << 40;
  expect_told(60, [&](const WorkPart& work) { plan_to_run(tight, &scenario, work); });
}

}  // namespace
}  // namespace evenspan::simulate
