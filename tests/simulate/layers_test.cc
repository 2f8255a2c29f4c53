// Models whose layers see different windows: a plan for each kind on one placement, and the step of all of them.
#include "evenspan/simulate/layers.h"

#include <cmath>

#include "evenspan/core/error.h"
#include "evenspan/simulate/bound.h"
#include "evenspan/simulate/choose.h"
#include "evenspan/simulate/explain.h"
#include "evenspan/simulate/formula.h"
#include "evenspan/simulate/planner.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "plan/strategy/strategy.h"
#include "simulate/draft_bound.h"
#include "simulate/scenarios.h"

namespace evenspan::simulate {
namespace {

const std::vector<int64_t> kLengths = {6000, 900, 500, 500, 2000, 60};

// Six layers, of which some have windows.
Scenario scenario_of(int32_t num_ranks, std::vector<WindowLayers> windows) {
  Scenario scenario = test::scenario_of(num_ranks, {1e-5, 5e9, 1, 5e9});
  scenario.model.num_layers = 6;
  scenario.model.windows = std::move(windows);
  return scenario;
}

plan::Request request_of(const Scenario& scenario, const std::string& strategy, plan::Mask mask = {}) {
  plan::Request request;
  request.documents = plan::Documents(kLengths, mask);
  request.shape = scenario.model.shape;
  request.topology = scenario.machine.topology;
  request.cost = cost_model(scenario.profile, scenario.model);
  request.options.strategy = strategy;
  plan_for_layers(scenario.model, &request);
  return request;
}

double step_of(const Scenario& scenario, const std::string& strategy, plan::Mask mask = {}) {
  return predict(*plan::make_plan(request_of(scenario, strategy, mask)), scenario).step_seconds;
}

std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(LayerKinds, AStepIsThatOfAllItsLayers) {
  const double full = step_of(scenario_of(1, {}), "local"), narrow = step_of(scenario_of(1, {{6, 200}}), "local");
  const double wide = step_of(scenario_of(1, {{6, 1000}}), "local");
  ASSERT_LT(narrow, wide);
  ASSERT_LT(wide, full);
  // Layers of a kind go on as the last simulated ones, which are alike to a millionth.
  EXPECT_NEAR(step_of(scenario_of(1, {{4, 200}}), "local"), (2 * full + 4 * narrow) / 6, 1e-6 * full);
  EXPECT_NEAR(step_of(scenario_of(1, {{3, 200}, {1, 1000}}), "local"), (2 * full + 3 * narrow + wide) / 6, 1e-6 * full);
}

TEST(LayerKinds, WindowsThatNoDocumentReachesChangeNothing) {
  for (const char* strategy : {"mixed", "sequence_aware", "zigzag"}) {
    EXPECT_DOUBLE_EQ(step_of(scenario_of(8, {{4, 6000}}), strategy), step_of(scenario_of(8, {}), strategy));
  }
}

TEST(LayerKinds, AWindowInEveryLayerIsTheMaskOfThePlan) {
  const Scenario windows = scenario_of(8, {{6, 700}}), none = scenario_of(8, {});
  for (const char* strategy : {"mixed", "sequence_aware", "zigzag"}) {
    EXPECT_EQ(step_of(windows, strategy), step_of(none, strategy, {plan::MaskKind::window, 700})) << strategy;
  }
  const auto masks = [](const plan::Request& request) { return request.documents[DocumentId(0)].mask; };
  EXPECT_EQ(masks(request_of(windows, "mixed")), (plan::Mask{plan::MaskKind::window, 700}));
  // The narrower of both counts, and the widest kind is planned.
  EXPECT_EQ(masks(request_of(windows, "mixed", {plan::MaskKind::window, 30})),
            (plan::Mask{plan::MaskKind::window, 30}));
  EXPECT_EQ(masks(request_of(scenario_of(8, {{2, 30}, {4, 700}}), "mixed")), (plan::Mask{plan::MaskKind::window, 700}));
  EXPECT_EQ(masks(request_of(scenario_of(8, {{2, 30}, {3, 700}}), "mixed")), plan::Mask{});
}

TEST(LayerKinds, TheCostOfABatchIsThatOfItsLayers) {
  const Scenario scenario = scenario_of(4, {{3, 50}, {2, 700}});
  const plan::Request request = request_of(scenario, "mixed");
  const plan::CostModel whole = cost_model(scenario.profile, scenario.model);
  double work = 0, pairs = 0;
  for (const plan::Document& document : request.documents.all()) {
    const Span all{0, document.length};
    work += request.cost.work(num_pairs(document, all), document.length);
    pairs += static_cast<double>(num_pairs(document, all));
    for (const auto& [count, window] : scenario.model.windows) {
      const plan::Document seen{document.length, {plan::MaskKind::window, window}};
      pairs += count * static_cast<double>(num_pairs(seen, all));
    }
  }
  const auto tokens = static_cast<double>(request.documents.total_tokens());
  EXPECT_NEAR(work, whole.pair_seconds / 6 * pairs + whole.token_seconds * tokens, 1e-9 * work);
  EXPECT_EQ(request.cost.num_layers, 1);
  EXPECT_DOUBLE_EQ(request.cost.pair_seconds, whole.pair_seconds / 6);
}

TEST(LayerKinds, HaveOnePlacement) {
  const Scenario scenario = scenario_of(8, {{3, 50}, {1, 500}, {1, 6000}});
  for (const plan::Strategy& strategy : plan::strategies()) {
    const auto base = plan::make_plan(request_of(scenario, std::string(strategy.name)));
    const LayersOfPlan layers = layers_of_plan(*base, scenario.model);
    EXPECT_EQ(layers.num_base_layers, 2) << "no document reaches 6,000 keys";
    ASSERT_EQ(layers.others.size(), 2u);
    EXPECT_EQ(layers.others[0].count, 3);
    for (const LayerPlan& other : layers.others) EXPECT_EQ(other.plan->placement, base->placement) << strategy.name;
    EXPECT_EQ(plan_seen_through(base, 6000), base);
    EXPECT_EQ(plan_seen_through(base, 0), base);
    EXPECT_EQ(plan_seen_through(base, 50)->hash, layers.others[0].plan->hash);
    const Prediction prediction = predict(*base, scenario);
    ASSERT_EQ(prediction.windows.size(), 2u);
    int64_t bytes = 0;
    for (const int64_t level : prediction.windows[0].forward.sent_bytes_by_level) bytes += level;
    EXPECT_EQ(bytes, plan::measure(*layers.others[0].plan).sent_bytes_total) << strategy.name;
  }
}

TEST(LayerKinds, StepsAreAboveTheirBoundsAndExplained) {
  for (const auto& windows : std::vector<std::vector<WindowLayers>>{{{5, 100}}, {{2, 100}, {2, 1000}}, {{6, 100}}}) {
    const Scenario scenario = scenario_of(8, windows);
    for (const char* strategy : {"mixed", "sequence_aware", "zigzag", "ulysses"}) {
      const auto plan = plan::make_plan(request_of(scenario, strategy));
      const Explanation why = explain(*plan, scenario);
      const StepParts& step = why.step;
      EXPECT_GT(step.step_seconds, step_lower_bound(plan->request, scenario));
      EXPECT_LE(bound_of_plan(*plan, scenario, HUGE_VAL), step.step_seconds * (1 + 1e-12))
          << strategy << " " << windows.front().count;
      EXPECT_NEAR(step.lower_bound_seconds + step.kernel_seconds + step.launch_seconds + step.copy_seconds +
                      step.message_seconds + step.imbalance_seconds + step.exposed_seconds,
                  step.step_seconds, 1e-9 * step.step_seconds);
      EXPECT_GE(step.kernel_seconds, 0);
      EXPECT_GE(step.exposed_seconds, -1e-12);
    }
  }
}

TEST(LayerKinds, AutoWeighsAllOfThem) {
  const Scenario scenario = scenario_of(16, {{5, 100}});
  const Choice choice = choose(request_of(scenario, "auto"), scenario);
  for (const plan::Strategy& strategy : plan::strategies()) {
    EXPECT_LE(choice.prediction.step_seconds, step_of(scenario, std::string(strategy.name))) << strategy.name;
  }
  plan::Request request;
  request.documents = plan::Documents(kLengths, plan::Mask{});
  request.shape = scenario.model.shape;
  request.options.strategy = "auto";
  EXPECT_EQ(plan_to_run(request, &scenario).plan->hash, choice.plan->hash);
}

TEST(LayerKinds, ABudgetHoldsForEveryLayer) {
  const Scenario scenario = scenario_of(8, {{5, 2000}});
  plan::Request request = request_of(scenario, "auto");
  const auto most = [](const plan::Plan& plan) {
    int64_t bytes = 0;
    for (const plan::RankProgram& program : plan::lower_all(plan).programs) {
      bytes = std::max(bytes, program.bytes(plan::Lifetime::phase) + program.bytes(plan::Lifetime::step));
    }
    return bytes;
  };
  const auto free = choose_within_budget(request, scenario).plan;
  request.options.memory_budget_bytes = most(*free) * 3 / 4;
  const auto plan = choose_within_budget(request, scenario).plan;
  EXPECT_LE(most(*plan), request.options.memory_budget_bytes);
  for (const LayerPlan& other : layers_of_plan(*plan, scenario.model).others) {
    EXPECT_LE(most(*other.plan), request.options.memory_budget_bytes);
  }
}

TEST(LayerKinds, WhatCannotBeWeighedIsRefused) {
  const Scenario scenario = scenario_of(128, {{5, 100}});
  EXPECT_THAT(error_of([&] {
                request_of(scenario, "mixed", {plan::MaskKind::full, 0});
              }),
              testing::HasSubstr("see causal documents, document 0 has the mask full"));
  EXPECT_THAT(error_of([&] { predict_by_formula(request_of(scenario, "ring"), scenario); }),
              testing::HasSubstr("no layers with windows, and the model has some of 100 keys"));
  for (const auto& windows : std::vector<std::vector<WindowLayers>>{{{7, 100}}, {{1, 0}}, {{0, 9}}, {{1, 9}, {1, 9}}}) {
    Model model = scenario.model;
    model.windows = windows;
    EXPECT_THAT(error_of([&] { validate(model); }), testing::HasSubstr("window")) << windows.front().window;
  }
}

}  // namespace
}  // namespace evenspan::simulate
