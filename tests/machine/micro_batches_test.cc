#include "evenspan/machine/micro_batches.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <string>

#include "evenspan/batch/machine_cost.h"
#include "evenspan/core/error.h"
#include "evenspan/machine/machine_files.h"
#include "evenspan/machine/run_scenario.h"

namespace evenspan::machine {
namespace {

// Llama 3 8B on machines of a shipped profile.
simulate::Scenario scenario_of(int32_t num_ranks) {
  return *scenario_of_run({"mixed", "h100-sxm", "", num_ranks, 0}, simulate::Model()).scenario;
}

MicroBatchPlanner planner_of(int32_t num_ranks, const MicroBatchLimits& limits, int32_t num_replicas = 1) {
  return {simulate::Model(), num_ranks, scenario_of(num_ranks), limits, num_replicas};
}

std::string refusal(int32_t num_ranks, const MicroBatchLimits& limits, int64_t tokens = 1) {
  try {
    planner_of(num_ranks, limits).plan(std::vector<int64_t>{1, tokens});
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

void expect_has(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << text;
}

const std::vector<int64_t> kLengths = {30'000, 5, 900, 900, 12'000, 1, 700, 64'000, 350, 8'000, 8'000, 2'500};

TEST(MicroBatches, WithoutLimitsThereIsOne) {
  const MicroBatchPlanner planner;
  EXPECT_FALSE(planner.capacity_tokens());
  const MicroBatches step = planner.plan(kLengths);
  ASSERT_EQ(step.documents.size(), 1u);
  EXPECT_EQ(step.documents[0], (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}));
  EXPECT_EQ(step.seconds, 0);
}

TEST(MicroBatches, HoldEveryDocumentOnceWithinTheLimit) {
  for (const batch::Planner& planner : batch::planners()) {
    if (planner.name == "flexsp") continue;  // refused below
    SCOPED_TRACE(planner.name);
    const MicroBatchPlanner planned = planner_of(8, {std::string(planner.name), 65'543, 0});
    EXPECT_EQ(planned.capacity_tokens(), 8192);  // rounded down
    const MicroBatches step = planned.plan(kLengths);
    std::vector<int64_t> all;
    for (const std::vector<int64_t>& documents : step.documents) {
      EXPECT_TRUE(std::is_sorted(documents.begin(), documents.end()));
      int64_t tokens = 0;
      for (const int64_t document : documents) tokens += kLengths[static_cast<size_t>(document)];
      EXPECT_LE(tokens, 65'536);
      all.insert(all.end(), documents.begin(), documents.end());
    }
    std::sort(all.begin(), all.end());
    std::vector<int64_t> each(kLengths.size());
    std::iota(each.begin(), each.end(), 0);
    EXPECT_EQ(all, each);
    EXPECT_GT(step.bound_seconds, 0);
    EXPECT_GE(step.seconds, step.bound_seconds * (1 - 1e-9));  // both are sums of a few thousand rounded terms
  }
}

TEST(MicroBatches, TheTighterLimitHolds) {
  const auto capacity = [](int64_t tokens, int64_t bytes) {
    return planner_of(8, {"auto", tokens, bytes}).capacity_tokens();
  };
  constexpr int64_t kBytes = int64_t{80} << 30;
  const int64_t by_memory = batch::capacity_tokens(simulate::Model(), 8, kBytes, batch::StateLayout::sharded_optimizer);
  EXPECT_EQ(capacity(0, kBytes), by_memory);
  EXPECT_EQ(capacity(8 * by_memory - 1, kBytes), by_memory - 1);
  EXPECT_EQ(capacity(8 * by_memory + 8, kBytes), by_memory);
}

TEST(MicroBatches, WhatDoesNotFitIsRefusedWithWhatWould) {
  expect_has(refusal(8, {"auto", 7, 0}),
             "micro_batch_tokens must be at least a token for each of the 8 ranks, it is 7");
  const std::string text = refusal(8, {"auto", 1000, 0}, 1001);
  expect_has(text,
             "document 1 has 1001 tokens and a micro-batch holds 1000, 125 on each of 8 ranks; raise "
             "micro_batch_tokens from 1000 to 1008, or cut the document");
  EXPECT_EQ(refusal(8, {"auto", 1008, 0}, 1001), "");
  expect_has(refusal(8, {"auto", 0, 1 << 30}), "or use more ranks");
  // The memory that is asked for is enough, and a byte less is not.
  const std::string needed = refusal(8, {"auto", 0, int64_t{80} << 30}, 500'000);
  const std::string before = "raise memory_budget from 85899345920 to ";
  expect_has(needed, before);
  const int64_t bytes = std::stoll(needed.substr(needed.find(before) + before.size()));
  EXPECT_EQ(refusal(8, {"auto", 0, bytes}, 500'000), "");
  expect_has(refusal(8, {"auto", 0, bytes - 2}, 500'000), "document 1 has 500000 tokens");
}

TEST(MicroBatches, PlannersThatDoNotServeAreRefused) {
  expect_has(refusal(8, {"flexsp", 1000, 0}), "flexsp uses a solver that a clock stops");
  expect_has(refusal(8, {"atuo", 1000, 0}), "did you mean 'auto'?");
  expect_has(refusal(6, {"megatron_hybrid", 1000, 0}), "another planner");
}

// Layers that see a window weigh less, and the more the longer a document is; ranks that share cores take longer.
TEST(MicroBatches, AreWeighedByWhatTheirLayersSee) {
  simulate::Scenario scenario = scenario_of(4);
  const batch::Cost full = batch::machine_cost(scenario);
  constexpr int64_t kWindow = 4096, kLong = 1 << 17;
  scenario.model.windows = {{24, kWindow}};
  const batch::Cost windowed = batch::machine_cost(scenario);
  // A query before the window's end sees all keys before it, whatever the layer.
  EXPECT_NEAR(windowed.work(kWindow), full.work(kWindow), 1e-12 * full.work(kWindow));
  const auto pairs = [](int64_t seen) {  // of a document of kLong tokens, as an integral over its rows
    const auto s = static_cast<double>(kLong);
    return static_cast<double>(seen) * (s - static_cast<double>(seen) / 2);
  };
  const double of_layer = full.square_seconds * 2 / 32;
  const double expected = full.work(kLong) - 24 * of_layer * (pairs(kLong) - pairs(kWindow));
  EXPECT_NEAR(windowed.work(kLong), expected, 1e-12 * full.work(kLong));

  scenario.model.windows = {};
  scenario.model.linear = {{24, {32, 32, 128, plan::ElementType::bf16}}};
  const batch::Cost hybrid = batch::machine_cost(scenario);
  EXPECT_NEAR(hybrid.square_seconds, full.square_seconds / 4, 1e-12 * full.square_seconds);
  EXPECT_GT(hybrid.token_seconds, full.token_seconds);  // the local part of linear layers
  EXPECT_LT(hybrid.work(kLong), full.work(kLong) / 2);

  scenario = scenario_of(4);
  scenario.machine.num_cores = 2;
  EXPECT_NEAR(batch::machine_cost(scenario).work(kLong), 2 * full.work(kLong), 1e-12 * full.work(kLong));
}

// Of any type and width of heads, which no profile has been measured for.
TEST(MicroBatches, WithoutAMachineAreWeighedByOperations) {
  simulate::Model model;
  model.shape = {4, 2, 32, plan::ElementType::f64};
  const MicroBatchPlanner planner(model, 8, std::nullopt, {"auto", 65'536, 0});
  const MicroBatches step = planner.plan(kLengths);
  EXPECT_EQ(step.documents.size(), 2u);  // of 127,356 tokens
  const batch::Cost cost = batch::operation_cost(model, 8);
  const plan::CostModel operations = simulate::cost_model(model);
  EXPECT_EQ(cost.square_seconds, operations.pair_seconds / 2);
  EXPECT_EQ(cost.token_seconds, operations.token_seconds);
  double work = 0;
  for (const int64_t length : kLengths) work += cost.work(length);
  EXPECT_GE(step.seconds, work / 8 * (1 - 1e-9));
  EXPECT_LE(step.seconds, 1.02 * work / 8);
}

double slowest_of(const std::vector<MicroBatches>& replicas) {
  double seconds = 0;
  for (const MicroBatches& replica : replicas) seconds = std::max(seconds, replica.seconds);
  return seconds;
}

void expect_all_documents(const std::vector<MicroBatches>& replicas, size_t num_documents) {
  std::vector<int64_t> all;
  for (const MicroBatches& replica : replicas) {
    for (const std::vector<int64_t>& documents : replica.documents) {
      EXPECT_TRUE(std::is_sorted(documents.begin(), documents.end()));
      EXPECT_FALSE(documents.empty());
      all.insert(all.end(), documents.begin(), documents.end());
    }
  }
  std::sort(all.begin(), all.end());
  std::vector<int64_t> each(num_documents);
  std::iota(each.begin(), each.end(), 0);
  EXPECT_EQ(all, each);
}

// A long document takes as long as many short ones, of which a micro-batch has no room for all.
TEST(Replicas, HaveAnyNumberOfMicroBatches) {
  std::vector<int64_t> lengths(60, 1000);
  lengths.push_back(30'000);
  const MicroBatchPlanner planner = planner_of(4, {"auto", 32'768, 0}, 2);
  const std::vector<MicroBatches> replicas = planner.divide(lengths);
  ASSERT_EQ(replicas.size(), 2u);
  expect_all_documents(replicas, lengths.size());
  EXPECT_EQ(replicas[0].documents.size(), 1u);
  EXPECT_EQ(replicas[1].documents.size(), 2u);
  EXPECT_LE(slowest_of(replicas), 1.05 * (replicas[0].seconds + replicas[1].seconds) / 2);
  for (const MicroBatches& replica : replicas) EXPECT_GE(replica.seconds, replica.bound_seconds * (1 - 1e-9));
  const std::vector<MicroBatches> again = planner.divide(lengths);
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(again[i].documents, replicas[i].documents);
}

TEST(Replicas, ServeEveryPlanner) {
  for (const batch::Planner& of : batch::planners()) {
    if (of.name == "flexsp") continue;  // refused above
    SCOPED_TRACE(of.name);
    const MicroBatchPlanner planner = planner_of(4, {std::string(of.name), 65'536, 0}, 2);
    const std::vector<MicroBatches> replicas = planner.divide(kLengths);
    expect_all_documents(replicas, kLengths.size());
    // No division is faster than the longest document alone.
    const double alone = planner.plan(std::vector<int64_t>{64'000}).seconds;
    EXPECT_LE(slowest_of(replicas), 1.05 * std::max(alone, (replicas[0].seconds + replicas[1].seconds) / 2));
  }
}

TEST(Replicas, AreOneWithoutMore) {
  const MicroBatchPlanner planner = planner_of(8, {"auto", 65'536, 0});
  const std::vector<MicroBatches> replicas = planner.divide(kLengths);
  ASSERT_EQ(replicas.size(), 1u);
  EXPECT_EQ(replicas[0].documents, planner.plan(kLengths).documents);
}

TEST(Replicas, WithoutLimitsDivideByTheWeightsOfTheCostModel) {
  plan::CostModel tokens;
  tokens.pair_seconds = 0;
  tokens.token_seconds = 1;
  const std::vector<MicroBatches> by_tokens = MicroBatchPlanner(tokens, 2).divide(kLengths);
  expect_all_documents(by_tokens, kLengths.size());
  for (const MicroBatches& replica : by_tokens) {
    ASSERT_EQ(replica.documents.size(), 1u);
    EXPECT_EQ(replica.seconds, 0);
    int64_t sum = 0;
    for (const int64_t document : replica.documents[0]) sum += kLengths[static_cast<size_t>(document)];
    EXPECT_NEAR(static_cast<double>(sum), 127'356 / 2.0, 700);
  }
  plan::CostModel pairs;
  pairs.token_seconds = 0;
  EXPECT_THAT(MicroBatchPlanner(pairs, 2).divide(kLengths)[0].documents,
              testing::ElementsAre(testing::ElementsAre(7)));  // more pairs than all others have
}

TEST(Replicas, MoreThanDocumentsHaveNone) {
  for (const bool limited : {false, true}) {
    const MicroBatchPlanner planner = limited ? planner_of(2, {"auto", 65'536, 0}, 3) : MicroBatchPlanner({}, 3);
    const std::vector<MicroBatches> replicas = planner.divide(std::vector<int64_t>{40, 700});
    EXPECT_THAT(replicas[0].documents, testing::ElementsAre(testing::ElementsAre(1)));
    EXPECT_THAT(replicas[1].documents, testing::ElementsAre(testing::ElementsAre(0)));
    EXPECT_THAT(replicas[2].documents, testing::IsEmpty());
    EXPECT_EQ(replicas[2].seconds, 0);
  }
}

// The optimiser's states are divided over the ranks of all replicas.
TEST(Replicas, LeaveRoomForMoreTokens) {
  constexpr int64_t kBytes = int64_t{100} << 30;
  const auto capacity = [](int32_t ranks, int32_t replicas) {
    return planner_of(ranks, {"auto", 0, kBytes}, replicas).capacity_tokens();
  };
  EXPECT_EQ(capacity(4, 2), capacity(8, 1));
  EXPECT_GT(capacity(4, 2), capacity(4, 1));
  try {
    planner_of(4, {"auto", 4000, 0}, 2).divide(kLengths);
    FAIL();
  } catch (const Error& error) {
    expect_has(error.what(), "document 0 has 30000 tokens and a micro-batch holds 4000, 1000 on each of 4 ranks");
  }
}

TEST(Replicas, HaveTheirPartOfTheMachine) {
  const auto replica = [](int32_t ranks_per_node, int32_t replicas) {
    return scenario_of_run({"mixed", "h100-sxm", "", 16, ranks_per_node, replicas}, simulate::Model())
        .scenario->machine;
  };
  EXPECT_EQ(replica(8, 1).topology, replica(8, 1).topology);
  EXPECT_EQ(replica(8, 2).topology.num_ranks, 8);
  EXPECT_EQ(replica(8, 2).links.size(), 1u);
  EXPECT_EQ(replica(8, 8).links.size(), 1u);
  EXPECT_EQ(replica(4, 2).links.size(), 2u);
  EXPECT_EQ(replica(4, 2).topology.ranks_per_node(), 4);
  simulate::validate(replica(4, 2));
}

TEST(RunScenario, TheDefaultProfileServesAutoAndIsNamed) {
  const auto note = [](const char* strategy) {
    return scenario_of_run({strategy, "", "", 2, 0}, simulate::Model()).note;
  };
  EXPECT_EQ(note("mixed"), "");
  expect_has(note("auto"), "auto chooses for the machine of the profile h100-sxm, since none is named");
}

}  // namespace
}  // namespace evenspan::machine
