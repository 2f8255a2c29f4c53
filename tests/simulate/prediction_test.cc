// Whole steps: programs in, times out.
#include "evenspan/simulate/prediction.h"

#include <algorithm>
#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "partial_plan_by_hand.h"
#include "plan/strategy/strategy.h"
#include "scenarios.h"
#include "simulate/live_bytes.h"

namespace evenspan::simulate {
namespace {

constexpr plan::AttentionShape kShape{4, 2, 8, plan::ElementType::bf16};

// Two nodes of two ranks; a token costs 1 s before and 3 s after attention in forward, twice that in backward.
Scenario nodes_of_two(int32_t num_ranks) {
  Scenario scenario;
  scenario.profile = test::simple_profile();
  scenario.machine = make_machine(scenario.profile, num_ranks, 0);
  scenario.model.shape = kShape;
  scenario.model.num_layers = 5;
  scenario.model.hidden = 32;
  scenario.model.vocabulary = 0;
  const double before = scenario.model.before_attention_flops();
  scenario.profile.forward_flops_per_second = scenario.profile.backward_flops_per_second = before;
  scenario.model.intermediate = (3 * 64 - 32) / 3;  // after: 2 x 32 x (32 + 3 x 53)
  return scenario;
}

Prediction predict_with(const char* strategy, const std::vector<int64_t>& lengths, const Scenario& scenario,
                        Timeline timeline = Timeline::skip) {
  plan::Request request;
  request.documents = plan::Documents(lengths, plan::Mask{});
  request.shape = scenario.model.shape;
  request.topology = scenario.machine.topology;
  request.cost = cost_model(scenario.profile, scenario.model);
  request.options.strategy = strategy;
  return predict(*plan::make_plan(request), scenario, timeline);
}

TEST(Price, OperationsOfATwoRankPlan) {
  const plan::LoweredPlan plan = test::two_rank_plan();
  Profile profile = test::simple_profile();
  profile.attention[0].forward.operation_seconds = 0.5;
  profile.memory_operation_seconds = 0.25;
  const Schedule one = price(plan.programs[1].phase(plan::PhaseKind::forward), kShape, profile, profile.attention[0]);
  ASSERT_EQ(one.steps.size(), 4U);
  EXPECT_EQ(one.steps[0].name, "exchange");
  ASSERT_EQ(one.exchanges.size(), 1U);
  EXPECT_TRUE(one.exchanges[0].sends.empty());
  ASSERT_EQ(one.exchanges[0].receives.size(), 2U);
  EXPECT_EQ(one.exchanges[0].receives[0].bytes, 4 * 2 * 8 * 2);
  EXPECT_DOUBLE_EQ(one.steps[1].seconds, 0.5 + 4 * 4 * 2.5 / 1000) << "4 rows, (4 + 1) / 2 keys, 4 heads";
  EXPECT_DOUBLE_EQ(one.steps[2].seconds, 0.5 + 4 * 16.0 / 1000);
  EXPECT_EQ(one.steps[2].waits, std::vector<int32_t>{0});
  EXPECT_DOUBLE_EQ(one.steps[3].seconds, 0.25 + 4 * 4 * 8 * (2 + 4) / 1000.0) << "reads float32, writes bf16";
}

TEST(Price, MergeAndDeltaCostTheirBytes) {
  const plan::LoweredPlan plan = test::partial_plan();
  const Profile profile = test::simple_profile();
  const Schedule forward =
      price(plan.programs[1].phase(plan::PhaseKind::forward), kShape, profile, profile.attention[0]);
  ASSERT_EQ(forward.steps.size(), 5U);
  EXPECT_EQ(forward.steps[3].name, "merge");
  EXPECT_DOUBLE_EQ(forward.steps[3].seconds, 3 * (512 + 64) / 1000.0) << "reads two, writes one";
  const Schedule backward =
      price(plan.programs[1].phase(plan::PhaseKind::backward), kShape, profile, profile.attention[0]);
  EXPECT_EQ(backward.steps[0].name, "delta");
  EXPECT_DOUBLE_EQ(backward.steps[0].seconds, (256 + 256 + 64) / 1000.0);
}

TEST(LiveBytes, OfAPartialThatArrives) {
  // The sum of 512 from the attend on, the partial of 512 and its log-sum-exp of 64 from the exchange to the merge.
  EXPECT_THAT(count_live_bytes(test::partial_plan().programs[1].phase(plan::PhaseKind::forward), kShape),
              testing::ElementsAre(0, 512, 1088, 1088, 512));
}

TEST(Price, MergesAndPairsTakeTimeWhereTheProfileSaysSo) {
  const plan::LoweredPlan plan = test::two_rank_plan();
  const Profile profile = test::simple_profile();
  Profile measured = profile;
  measured.attention[0].forward.merge_seconds = 10;
  measured.attention[0].forward.merge_row_seconds = 1;
  measured.memory_pair_seconds = 3;
  const Schedule without =
      price(plan.programs[1].phase(plan::PhaseKind::forward), kShape, profile, profile.attention[0]);
  const Schedule with =
      price(plan.programs[1].phase(plan::PhaseKind::forward), kShape, measured, measured.attention[0]);
  const auto more = [&](size_t step) { return with.steps[step].seconds - without.steps[step].seconds; };
  EXPECT_NEAR(more(1), 10 + 4 * 4, 1e-9) << "written in float32, 4 rows of 4 heads";
  EXPECT_NEAR(more(2), 10 + 4 * 4, 1e-9) << "added";
  EXPECT_NEAR(more(3), 3, 1e-9) << "one pair";
}

TEST(LiveBytes, FollowABlockFromItsWriteToItsLastRead) {
  const plan::LoweredPlan plan = test::two_rank_plan();
  // Rank 1 forward: keys and values of 128 bytes from the exchange to the second attend, the partial output of 512 from
  // the first attend to the copy.
  EXPECT_THAT(count_live_bytes(plan.programs[1].phase(plan::PhaseKind::forward), kShape),
              testing::ElementsAre(256, 768, 768, 512));
  // Rank 0 backward: sums of 512 from the first gradients on, parts of 512 from the exchange to the addition.
  EXPECT_THAT(count_live_bytes(plan.programs[0].phase(plan::PhaseKind::backward), kShape),
              testing::ElementsAre(0, 512, 1024, 1024, 512));
}

TEST(Predict, OneRankDoesOneThingAfterAnother) {
  const Scenario scenario = nodes_of_two(1);
  const Prediction prediction = predict_with("local", {10}, scenario);
  const double forward = 4 * 10 * 5.5 / 1000, backward = 3 * forward;  // causal: (10 + 1) / 2 keys
  EXPECT_DOUBLE_EQ(prediction.forward.makespan_seconds, forward);
  EXPECT_DOUBLE_EQ(prediction.backward.makespan_seconds, backward);
  const double token = (scenario.model.before_attention_flops() + scenario.model.after_attention_flops()) /
                       scenario.profile.forward_flops_per_second;
  EXPECT_NEAR(prediction.step_seconds, 5 * (forward + backward + 3 * 10 * token), 1e-9);
  EXPECT_NEAR(prediction.idle_fraction, 0, 1e-12);
}

TEST(Predict, UncoupledRanksRunOnByThemselves) {
  // Nobody waits for anybody: the step is that of the rank with the longer document.
  const Scenario alone = nodes_of_two(1);
  const Prediction together = predict_with("local", {10, 4}, nodes_of_two(2));
  EXPECT_NEAR(together.step_seconds, predict_with("local", {10}, alone).step_seconds, 1e-9);
  const double used = predict_with("local", {10}, alone).step_seconds + predict_with("local", {4}, alone).step_seconds;
  EXPECT_NEAR(together.idle_fraction, 1 - used / (2 * together.step_seconds), 1e-9);
}

TEST(Predict, ManyLayersGoOnAsSimulatedOnesDo) {
  // The rule that ends the simulation of layers early must not show.
  Scenario scenario = nodes_of_two(4);
  std::vector<double> steps;
  for (const int32_t layers : {6, 7, 40}) {
    scenario.model.num_layers = layers;
    steps.push_back(predict_with("sequence_aware", {40, 17, 5, 30}, scenario).step_seconds);
  }
  EXPECT_NEAR(steps[2] - steps[0], 34 * (steps[1] - steps[0]), 1e-5 * steps[2]);
}

TEST(Predict, EveryStrategyIsSimulatedAndItsBytesAreThePlans) {
  const Scenario scenario = nodes_of_two(4);
  for (const plan::Strategy& strategy : plan::strategies()) {
    SCOPED_TRACE(strategy.name);
    const Prediction first = predict_with(std::string(strategy.name).c_str(), {40, 17, 5, 30}, scenario);
    const Prediction again = predict_with(std::string(strategy.name).c_str(), {40, 17, 5, 30}, scenario);
    EXPECT_EQ(first.step_seconds, again.step_seconds);
    plan::Request request;
    request.documents = plan::Documents({40, 17, 5, 30}, plan::Mask{});
    request.shape = kShape;
    request.topology = scenario.machine.topology;
    request.cost = cost_model(scenario.profile, scenario.model);
    request.options.strategy = strategy.name;
    const plan::Metrics metrics = plan::measure(*plan::make_plan(request));
    const auto& by_level = first.forward.sent_bytes_by_level;
    EXPECT_EQ(by_level[0] + by_level[1], metrics.sent_bytes_total);
    double most_compute = 0;
    for (const RankUse& use : first.forward.ranks) most_compute = std::max(most_compute, use.compute_seconds);
    EXPECT_GE(first.forward.makespan_seconds, most_compute);
    EXPECT_GE(first.idle_fraction, -1e-12);
    EXPECT_LT(first.idle_fraction, 1);
  }
}

TEST(Predict, TimelineIsThereWhenRecorded) {
  const Scenario scenario = nodes_of_two(4);
  EXPECT_TRUE(predict_with("ring", {40}, scenario).forward.timeline.empty());
  const Prediction recorded = predict_with("ring", {40}, scenario, Timeline::record);
  ASSERT_FALSE(recorded.forward.timeline.empty());
  int64_t most_live = 0;
  for (const Interval& interval : recorded.forward.timeline) {
    EXPECT_LE(interval.end_seconds, recorded.forward.makespan_seconds);
    most_live = std::max(most_live, interval.live_bytes);
  }
  EXPECT_GT(most_live, 0);
  EXPECT_LE(most_live, recorded.peak_arena_bytes);
}

// Times of the simple profile on four ranks, forward and backward of one layer and the step: a change of a strategy, of
// lowering, of prices or of the simulator shows here.
TEST(Predict, GoldenTable) {
  const Scenario scenario = nodes_of_two(4);
  std::string table;
  for (const char* strategy : {"local", "ring", "all_gather", "ulysses"}) {
    const Prediction p = predict_with(strategy, {40, 17, 5, 30}, scenario);
    std::ostringstream line;
    line.precision(6);
    line << strategy << ' ' << p.forward.makespan_seconds << ' ' << p.backward.makespan_seconds << ' ' << p.step_seconds
         << '\n';
    table += line.str();
  }
  EXPECT_EQ(table, R"(local 3.28 9.84 2456.22
ring 119.416 252.28 3205.87
all_gather 96.64 67.44 2155.3
ulysses 141.613 255.447 3359.91
)");
}

}  // namespace
}  // namespace evenspan::simulate
