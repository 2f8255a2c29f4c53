// Formulas beside the programs that they stand for.
#include "evenspan/simulate/formula.h"

#include <numeric>

#include "evenspan/core/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "plan/strategy/strategy.h"
#include "scenarios.h"

namespace evenspan::simulate {
namespace {

Scenario scenario_of(int32_t num_ranks) { return test::scenario_of(num_ranks, {2e-6, 2e9, 2, 4e9}); }

plan::Request request_of(const Scenario& scenario, const char* strategy, plan::Mask mask = {}) {
  plan::Request request;
  request.documents = plan::Documents({6000, 2048, 9000, 1024, 512, 3000, 700}, mask);
  request.shape = scenario.model.shape;
  request.topology = scenario.machine.topology;
  request.cost = cost_model(scenario.profile, scenario.model);
  request.options.strategy = strategy;
  return request;
}

class FormulaOf : public testing::TestWithParam<const char*> {};

TEST_P(FormulaOf, IsNearTheSimulatedPrograms) {
  const Scenario scenario = scenario_of(16);
  for (const plan::MaskKind kind : {plan::MaskKind::causal, plan::MaskKind::full}) {
    const plan::Request request = request_of(scenario, GetParam(), plan::Mask{kind, 0});
    SCOPED_TRACE(to_string(plan::Mask{kind, 0}));
    const Prediction formula = predict_by_formula(request, scenario);
    const Prediction programs = predict(*plan::make_plan(request), scenario);
    EXPECT_TRUE(formula.by_formula);
    EXPECT_NEAR(formula.forward.makespan_seconds / programs.forward.makespan_seconds, 1, 0.25);
    EXPECT_NEAR(formula.backward.makespan_seconds / programs.backward.makespan_seconds, 1, 0.25);
    EXPECT_NEAR(formula.step_seconds / programs.step_seconds, 1, 0.25);
    EXPECT_NEAR(formula.work_max_over_mean, programs.work_max_over_mean, 0.02);
    EXPECT_NEAR(formula.tokens_max_over_mean, programs.tokens_max_over_mean, 0.01);
    const auto& expected = programs.forward.sent_bytes_by_level;
    const auto& bytes = formula.forward.sent_bytes_by_level;
    const auto total = static_cast<double>(std::accumulate(expected.begin(), expected.end(), int64_t{0}));
    for (size_t level = 0; level < expected.size(); ++level) {
      EXPECT_NEAR(static_cast<double>(bytes[level] - expected[level]) / total, 0, 0.01) << "level " << level;
    }
  }
}

std::vector<const char*> with_formulas() {
  std::vector<const char*> names;
  for (const plan::Strategy& strategy : plan::strategies()) {
    if (strategy.traits.uniform.has_value()) names.push_back(strategy.name.data());
  }
  return names;
}
INSTANTIATE_TEST_SUITE_P(Strategies, FormulaOf, testing::ValuesIn(with_formulas()),
                         [](const auto& info) { return std::string(info.param); });

TEST(Formula, TakesOverBeyond64Ranks) {
  const Scenario at = scenario_of(64), beyond = scenario_of(68);
  EXPECT_FALSE(plan_and_predict(request_of(at, "ulysses"), at).prediction.by_formula);
  EXPECT_TRUE(plan_and_predict(request_of(beyond, "ulysses"), beyond).prediction.by_formula);
  EXPECT_FALSE(plan_and_predict(request_of(beyond, "hierarchical"), beyond).prediction.by_formula);
  EXPECT_FALSE(plan_and_predict(request_of(beyond, "local"), beyond).prediction.by_formula);
}

TEST(Formula, RefusesWhatItDoesNotKnow) {
  const Scenario scenario = scenario_of(68);
  const auto refusal = [&](const plan::Request& request) -> std::string {
    try {
      predict_by_formula(request, scenario);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(refusal(request_of(scenario, "ring", plan::Mask{plan::MaskKind::window, 5})),
              testing::HasSubstr("ring on 68 ranks is predicted by a formula, which knows causal and full masks, not "
                                 "window:5; use at most 64 ranks"));
  EXPECT_THAT(refusal(request_of(scenario, "local")), testing::HasSubstr("local has no formula"));
}

}  // namespace
}  // namespace evenspan::simulate
