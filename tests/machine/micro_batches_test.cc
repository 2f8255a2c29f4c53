#include "evenspan/machine/micro_batches.h"

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

// Llama 3 8B on machines of the default profile.
simulate::Scenario scenario_of(int32_t num_ranks) {
  return *scenario_of_run({"mixed", "", "", num_ranks, 0, /*cuts_batches=*/true}, simulate::Model()).scenario;
}

std::string refusal(int32_t num_ranks, const MicroBatchLimits& limits, int64_t tokens = 1) {
  try {
    MicroBatchPlanner(scenario_of(num_ranks), limits).plan(std::vector<int64_t>{1, tokens});
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
    const MicroBatchPlanner planned(scenario_of(8), {std::string(planner.name), 65'543, 0});
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
    return MicroBatchPlanner(scenario_of(8), {"auto", tokens, bytes}).capacity_tokens();
  };
  constexpr int64_t kBytes = int64_t{80} << 30;
  const int64_t by_memory = batch::capacity_tokens(scenario_of(8), kBytes, batch::StateLayout::sharded_optimizer);
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
  simulate::Scenario windows = scenario_of(2);
  windows.model.windows = {{32, 4096}};
  try {
    const MicroBatchPlanner planner(windows, {"auto", 1000, 0});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::unsupported);
    expect_has(error.what(), "the model has 32 layers with windows");
  }
}

TEST(MicroBatches, TheDefaultProfileServesAndIsNamed) {
  const auto note = [](const char* strategy, bool cuts) {
    return scenario_of_run({strategy, "", "", 2, 0, cuts}, simulate::Model()).note;
  };
  EXPECT_EQ(note("mixed", false), "");
  expect_has(note("mixed", true), "batches are cut for the machine of the profile h100-sxm, since none is named");
  expect_has(note("auto", true), "auto chooses, and batches are cut, for the machine of the profile h100-sxm");
}

}  // namespace
}  // namespace evenspan::machine
