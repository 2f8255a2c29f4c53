// `auto` is never worse than a uniform strategy, and what it does not simulate it may leave out.
#include "evenspan/simulate/choose.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "../../bench/h100_scenario.h"
#include "../../bench/lengths.h"
#include "evenspan/simulate/bound.h"
#include "evenspan/simulate/formula.h"
#include "plan/strategy/strategy.h"
#include "scenarios.h"
#include "support/sweep.h"

namespace evenspan::simulate {
namespace {

// The slower the links between nodes, the more a strategy's bytes decide.
Scenario scenario_of(int32_t num_ranks, double between_nodes) {
  Scenario scenario = test::scenario_of(num_ranks, {2e-6, between_nodes, 0, 0});
  scenario.model.num_layers = 3;
  return scenario;
}

plan::Request request_of(const Scenario& scenario, uint64_t seed, plan::MaskKind mask) {
  std::vector<int64_t> lengths;
  uint64_t state = seed;
  for (int i = 0; i < 12; ++i) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    const auto kind = static_cast<int>((state >> 60) % 3);
    lengths.push_back(1 + static_cast<int64_t>((state >> 33) % (kind == 0 ? 6000 : 700)));
  }
  plan::Request request;
  request.documents = plan::Documents(lengths, plan::Mask{mask, mask == plan::MaskKind::window ? 100 : 0});
  request.shape = scenario.model.shape;
  request.topology = scenario.machine.topology;
  request.cost = cost_model(scenario.profile, scenario.model);
  return request;
}

TEST(Choose, IsNeverWorseThanAnyStrategy) {
  for (const int32_t ranks : {2, 4, 8, 12}) {
    for (const double between_nodes : {1e8, 4e9}) {
      for (const plan::MaskKind mask : {plan::MaskKind::causal, plan::MaskKind::full, plan::MaskKind::window}) {
        const Scenario scenario = scenario_of(ranks, between_nodes);
        plan::Request request = request_of(scenario, static_cast<uint64_t>(ranks), mask);
        const Choice choice = choose(request, scenario);
        const double bound = step_lower_bound(request, scenario);
        EXPECT_LE(bound, choice.prediction.step_seconds);
        EXPECT_GT(bound, 0);
        ASSERT_NE(choice.plan, nullptr);
        EXPECT_EQ(choice.plan->request.options, choice.options);
        EXPECT_EQ(predict(*choice.plan, scenario).step_seconds, choice.prediction.step_seconds);
        for (const plan::Strategy& strategy : plan::strategies()) {
          request.options.strategy = std::string(strategy.name);
          const Prediction other = predict(*plan::make_plan(request), scenario);
          EXPECT_LE(choice.prediction.step_seconds, other.step_seconds)
              << strategy.name << " on " << ranks << " ranks, " << between_nodes << " bytes/s between nodes";
        }
      }
    }
  }
}

// Also with documents of a few tokens, which give most ranks nothing, beside long ones and alone; with rows and keys in
// whole tiles, and starts of operations and segments.
TEST(Choose, BoundsAreBelowThePrograms) {
  test::Sweep sweep;
  for (const int32_t ranks : {2, 4, 8, 12, 16}) {
    for (uint64_t seed = 1; seed <= 2; ++seed) {
      for (const double between_nodes : {1e8, 4e9}) {
        Scenario scenario = scenario_of(ranks, between_nodes);
        if (seed % 2 == 0) {
          AttentionTimes& times = scenario.profile.attention[0];
          times.tile = 16;
          for (PassTimes* pass : {&times.forward, &times.backward}) {
            pass->operation_seconds = 2e-5;
            pass->segment_seconds = 1e-7;
          }
        }
        plan::Request request = request_of(scenario, seed, plan::MaskKind::causal);
        std::mt19937 random(static_cast<uint32_t>(seed * 100) + static_cast<uint32_t>(ranks));
        std::vector<std::vector<int64_t>> batches;
        for (const int64_t longest : {3, 60, 400, 1000, 6000}) {
          std::vector<int64_t>& lengths = batches.emplace_back(1 + random() % 10);
          for (int64_t& length : lengths) length = 1 + static_cast<int64_t>(random() % static_cast<uint32_t>(longest));
        }
        batches.push_back({1});
        batches.push_back({1000, 3});
        batches.push_back({6000, 2, 9});
        for (const std::vector<int64_t>& lengths : batches) {
          for (const plan::MaskKind mask : {plan::MaskKind::causal, plan::MaskKind::full}) {
            if (!sweep.takes_next()) continue;
            request.documents = plan::Documents(lengths, plan::Mask{mask, 0});
            for (const plan::Strategy& strategy : plan::strategies()) {
              request.options.strategy = std::string(strategy.name);
              if (!has_formula(request.options.strategy)) continue;
              EXPECT_LE(bound_by_formula(request, scenario, HUGE_VAL),
                        predict(*plan::make_plan(request), scenario).step_seconds)
                  << strategy.name << " on " << ranks << " ranks, documents of " << testing::PrintToString(lengths)
                  << " tokens, " << to_string(request.documents.all().front().mask) << ", seed " << seed;
            }
          }
        }
      }
    }
  }
}

// One document on one rank is a single tile at the best rate: nothing but launches and rounding stands above the bound.
TEST(StepLowerBound, IsMetByOneTile) {
  Scenario scenario = scenario_of(1, 1e9);
  scenario.profile.attention[0].forward.operation_seconds = scenario.profile.attention[0].backward.operation_seconds =
      0;
  scenario.profile.attention[0].forward.segment_seconds = scenario.profile.attention[0].backward.segment_seconds = 0;
  plan::Request request = request_of(scenario, 1, plan::MaskKind::full);
  request.documents = plan::Documents(std::vector<int64_t>{4096}, plan::Mask{plan::MaskKind::full, 0});
  request.options.strategy = "local";
  const double step = predict(*plan::make_plan(request), scenario).step_seconds;
  EXPECT_NEAR(step_lower_bound(request, scenario) / step, 1, 1e-9);
}

// Measured squares may be faster for each pair than any full tile.
TEST(StepLowerBound, LooksAtMeasuredSquares) {
  Scenario scenario = scenario_of(1, 1e9);
  AttentionTimes& times = scenario.profile.attention[0];
  times.squares = {64, 4096};
  times.forward.square_seconds = {1e-6, 1e-4};
  times.backward.square_seconds = {2e-6, 2e-4};
  for (PassTimes* pass : {&times.forward, &times.backward}) pass->operation_seconds = pass->segment_seconds = 0;
  plan::Request request = request_of(scenario, 1, plan::MaskKind::causal);
  request.options.strategy = "local";
  for (const int64_t length : {40, 64, 1000, 4096}) {
    request.documents = plan::Documents(std::vector<int64_t>{length}, plan::Mask{});
    const double step = predict(*plan::make_plan(request), scenario).step_seconds;
    EXPECT_LE(step_lower_bound(request, scenario), step * (1 + 1e-9)) << length;
    if (length < 4096) continue;
    EXPECT_NEAR(step_lower_bound(request, scenario) / step, 1, 1e-9);
  }
}

// The choice is that of trying everything, and hardly anything is tried.
TEST(Choose, SimulatesFewOfItsCandidatesAndLosesNothing) {
  int num_candidates = 0, num_simulated = 0;
  for (const int32_t ranks : {2, 8, 12}) {
    for (const double between_nodes : {1e7, 1e9, 1e11}) {
      for (const uint64_t seed : {1, 2}) {
        const Scenario scenario = scenario_of(ranks, between_nodes);
        const plan::Request request = request_of(scenario, seed, plan::MaskKind::causal);
        const Choice choice = choose(request, scenario);
        double best = HUGE_VAL;
        for (const Candidate& candidate : choice.candidates) {
          plan::Request one = request;
          one.options.strategy = candidate.strategy;
          one.options.ranks_per_group = candidate.ranks_per_group;
          const double step = predict(*plan::make_plan(one), scenario).step_seconds;
          best = std::min(best, step);
          ++num_candidates;
          num_simulated += candidate.simulated ? 1 : 0;
          if (candidate.simulated) {
            EXPECT_EQ(candidate.step_seconds, step);
          } else {
            EXPECT_LE(candidate.step_seconds, step * (1 + 1e-12));
            EXPECT_GE(candidate.step_seconds, choice.prediction.step_seconds);
          }
        }
        EXPECT_LE(choice.prediction.step_seconds, best * (1 + 1e-12));
      }
    }
  }
  EXPECT_LE(4 * num_simulated, num_candidates);
}

// Many documents on H100 nodes: programs of most candidates are never written.
TEST(Choose, SimulatesFewPlansOfManyDocuments) {
  const Scenario scenario = bench::h100_scenario(64);
  for (const char* file : {"prolong_20000.txt", "wikipedia_20000.txt"}) {
    const Choice choice =
        choose(bench::request_for(scenario, "auto", bench::first_lengths(file, int64_t{2} << 20)), scenario);
    const auto simulated = std::count_if(choice.candidates.begin(), choice.candidates.end(),
                                         [](const Candidate& candidate) { return candidate.simulated; });
    EXPECT_LE(simulated, 4) << file;
    EXPECT_GE(choice.candidates.size(), 18U) << file;
  }
}

TEST(Choose, LeavesOutWhatItsBoundForbids) {
  const Scenario scenario = scenario_of(8, 1e7);  // slow links: rings are hopeless
  const Choice choice = choose(request_of(scenario, 5, plan::MaskKind::causal), scenario);
  int left_out = 0;
  for (const Candidate& candidate : choice.candidates) {
    if (candidate.simulated) continue;
    ++left_out;
    EXPECT_GE(candidate.step_seconds, choice.prediction.step_seconds) << candidate.strategy;
  }
  EXPECT_GE(left_out, 3);
}

}  // namespace
}  // namespace evenspan::simulate
