// What a draft and a plan take at least is no more than what their programs take, whatever moves and waits.
#include "simulate/draft_bound.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "evenspan/simulate/layers.h"
#include "scenarios.h"
#include "support/sweep.h"

namespace evenspan::simulate {
namespace {

// Documents of a few tokens beside such that must be cut.
plan::Request random_request(const Scenario& scenario, std::mt19937* random) {
  const auto below = [random](uint32_t n) { return static_cast<int64_t>((*random)() % n); };
  std::vector<plan::Document> documents(static_cast<size_t>(1 + below(14)));
  const bool windowed = !scenario.model.windows.empty();
  for (plan::Document& document : documents) {
    document.length = 1 + below(below(3) == 0 ? 4000 : below(2) == 0 ? 700 : 40);
    const int64_t mask = windowed ? 0 : below(6);
    if (mask == 3) document.mask = {plan::MaskKind::full, 0};
    if (mask == 4) document.mask = {plan::MaskKind::window, 1 + below(900)};
    if (mask == 5) document.mask = {plan::MaskKind::prefix, 1 + below(static_cast<uint32_t>(document.length))};
  }
  plan::Request request;
  request.documents = plan::Documents(std::move(documents));
  request.shape = scenario.model.shape;
  request.topology = scenario.machine.topology;
  request.cost = cost_model(scenario.profile, scenario.model);
  plan_for_layers(scenario.model, &request);
  return request;
}

Scenario random_scenario(int32_t num_ranks, std::mt19937* random) {
  const auto one_of = [random](auto... values) {
    const std::array all{values...};
    return all[(*random)() % all.size()];
  };
  Scenario scenario = test::scenario_of(num_ranks, {one_of(1e-6, 1e-4), one_of(1e7, 1e8, 1e10), one_of(0, 2), 0});
  Link& outer = scenario.machine.links.back();
  if (outer.cards > 0) outer.card_bytes_per_second = 2 * outer.bytes_per_second;
  Profile& profile = scenario.profile;
  profile.memory_bytes_per_second = one_of(1e9, 1e11);
  AttentionTimes& times = profile.attention[0];
  times.elements = {one_of(plan::ElementType::bf16, plan::ElementType::f32)};
  scenario.model.set_element(times.elements[0]);
  times.tile = one_of(1, 16);
  times.queries = {32, 512};
  times.keys = {64, 1024};
  // The first keys cost more than later ones, or less.
  const double first = one_of(0.5, 2.0);
  times.forward.seconds = {first * 2e-6, 2.5e-5, first * 2e-5, 3e-4};
  times.backward.seconds = {first * 5e-6, 6e-5, first * 5e-5, 7e-4};
  times.forward.operation_seconds = times.backward.segment_seconds = one_of(0.0, 1e-5);
  // What every layer waits for adds up.
  scenario.model.num_layers = one_of(4, 4, 16);
  scenario.model.hidden = one_of(64, 1024);
  if (one_of(0, 0, 1) == 1) scenario.model.windows = {{1, 100}, {2, 900}};
  return scenario;
}

TEST(DraftBound, IsNoMoreThanTheStepOfThePrograms) {
  test::Sweep sweep;
  std::mt19937 random(3);
  int num_tight = 0, num_relayed = 0, num_partial = 0;
  for (int i = 0; i < 50; ++i) {
    const int32_t num_ranks = std::array{2, 4, 8, 12, 16}[static_cast<size_t>(i % 5)];
    const Scenario scenario = random_scenario(num_ranks, &random);
    plan::Request request = random_request(scenario, &random);
    for (const plan::Strategy& strategy : plan::strategies()) {
      for (const int32_t group : {0, 2, 4, 8, 16}) {
        const bool groups = strategy.name == "mixed" || strategy.name == "hierarchical" || strategy.name == "usp";
        if (group > 0 && (!groups || num_ranks % group != 0)) continue;
        if (!sweep.takes_next()) continue;
        request.options.strategy = std::string(strategy.name);
        request.options.ranks_per_group = group;
        plan::Draft draft = plan::find_strategy(request.options.strategy).write(request);
        const double of_draft = bound_of_draft(request, draft, scenario, HUGE_VAL);
        const auto plan = plan::make_plan(request, std::move(draft));
        const double of_plan = bound_of_plan(*plan, scenario, HUGE_VAL);
        const double step = predict(*plan, scenario).step_seconds;
        EXPECT_LE(of_draft, step * (1 + 1e-12)) << strategy.name << "/" << group << " in batch " << i;
        EXPECT_LE(of_plan, step * (1 + 1e-12)) << strategy.name << "/" << group << " in batch " << i;
        EXPECT_GT(of_draft, 0);
        // A part of them that is enough.
        const double part = bound_of_plan(*plan, scenario, 0.9 * of_plan);
        EXPECT_GE(part, 0.9 * of_plan);
        EXPECT_LE(part, of_plan * (1 + 1e-12));
        num_tight += of_plan > 0.95 * step ? 1 : 0;
        num_relayed += plan->relay_rounds.empty() ? 0 : 1;
        num_partial += plan->partials.empty() ? 0 : 1;
      }
    }
  }
  // Of the third of the cases that a sanitizer takes, too.
  EXPECT_GE(num_tight, 100);
  EXPECT_GE(num_relayed, 5);
  EXPECT_GE(num_partial, 10);
}

}  // namespace
}  // namespace evenspan::simulate
