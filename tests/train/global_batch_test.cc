// Steps of several micro-batches: what one rank trains in one, exactly resumed, whoever cuts them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <map>

#include "evenspan/batch/planner.h"
#include "evenspan/core/error.h"
#include "evenspan/train/report.h"
#include "train/resume_notes.h"
#include "train/small_run.h"
#include "train/thread_run.h"

namespace evenspan::train {
namespace {

using evenspan::testing::bytes_of;
using evenspan::testing::error_of;
using evenspan::testing::kSizes;
using evenspan::testing::llama_json;
using evenspan::testing::metrics_of;
using evenspan::testing::profile_json;
using evenspan::testing::run;
using evenspan::testing::Scratch;
using evenspan::testing::small_run;
using evenspan::testing::write_texts;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Batches of 150 tokens; micro-batches of 64, on a machine whose profile is there.
Config global_batch_config(const Scratch& s, const std::string& folder) {
  Config config = small_run(s, llama_json(2), folder);
  config.parallel.profile = s.write("profile.json", profile_json(1e6, config.model.dtype));
  config.parallel.micro_batch_tokens = 64;
  return config;
}

Config without_micro_batches(Config config) {
  config.parallel = ParallelConfig();
  config.parallel.threads_per_rank = 1;
  return config;
}

TEST(GlobalBatch, ManyRanksTrainInMicroBatchesWhatOneTrainsInOne) {
  const Scratch s;
  write_texts(s, kSizes);
  Config config = global_batch_config(s, "straight");
  config.run.steps = 50;
  config.optimizer.decay_steps = 50;
  const Summary straight = run(config, 4);

  Config reference = without_micro_batches(config);
  reference.run.folder = s.path("one");
  const Summary one = run(reference, 1);
  // The rule for float64 of compare_runs(): distance of the weights 1e-8, first loss 1e-6.
  const Comparison comparison = compare_runs(s.path("straight"), s.path("one"), {});
  EXPECT_TRUE(comparison.equal) << comparison_table(comparison);
  EXPECT_LE(comparison.largest_loss_difference, 1e-8);
  EXPECT_NEAR(straight.held_out_loss, one.held_out_loss, 1e-8);
  EXPECT_LT(one.last_loss, one.first_loss);
  EXPECT_THAT(comparison_table(comparison), HasSubstr("micro-batches: "));
  EXPECT_THAT(comparison_page(comparison), HasSubstr("micro-batches of a step"));

  config.run.folder = s.path("broken");
  config.run.steps = 23;
  run(config, 4);
  config.run.steps = 50;
  config.run.resume = "latest";
  const Summary resumed = run(config, 4);
  EXPECT_EQ(resumed.last_loss, straight.last_loss);
  EXPECT_TRUE(bytes_of(resumed.checkpoint) == bytes_of(straight.checkpoint));

  // Cut otherwise from the checkpoint on: other rounding, the same training.
  config.run.resume = s.path("broken/checkpoints/step-00000023");
  config.run.folder = s.path("other");
  config.parallel.micro_batch_tokens = 100;
  config.parallel.batch_planner = "wlb";
  EXPECT_LE(weight_distance(run(config, 4).checkpoint, one.checkpoint), 1e-8);
}

TEST(GlobalBatch, EveryPlannerTrainsTheSame) {
  const Scratch s;
  write_texts(s, kSizes);
  Config config = global_batch_config(s, "one");
  const Summary one = run(without_micro_batches(config), 1);
  for (const batch::Planner& planner : batch::planners()) {
    if (planner.name == "flexsp") continue;  // has a solver, is refused
    SCOPED_TRACE(planner.name);
    config.parallel.batch_planner = planner.name;
    config.run.folder = s.path(std::string(planner.name));
    const Summary many = run(config, 4);
    EXPECT_LE(weight_distance(many.checkpoint, one.checkpoint), 1e-8);
    int64_t most = 0;
    for (const nlohmann::json& line : metrics_of(s, std::string(planner.name))) {
      most = std::max(most, line.value("micro_batches", int64_t{0}));
    }
    EXPECT_GT(most, 1);
  }
}

// Eight times the same document, alone in its micro-batch, is a gradient of exactly an eighth each: all numbers are
// those of one document but for the exponent. So their sum is that of the one document to the last bit, if it is taken
// in float32; in bfloat16 three eighths of most numbers need more digits than there are.
TEST(GlobalBatch, GradientsOfBfloat16AddUpInFloat32) {
  const Scratch s;
  const std::string text = "micro-batches add up";
  const auto config_of = [&](const std::string& folder, int64_t copies) {
    Config config = small_run(s, llama_json(2), folder);
    for (int64_t i = 0; i < copies; ++i) s.write(join_text(folder, " text/", i), text);
    config.data.path = s.path(folder + " text");
    config.data.held_out_fraction = 0;
    config.data.max_document_tokens = 21;
    config.data.batch_tokens = 21 * copies;
    config.model.dtype = "bfloat16";
    config.run.steps = 3;
    return config;
  };
  const Summary one = run(config_of("one", 1), 1);
  Config config = config_of("eight", 8);
  config.parallel.profile = s.write("profile.json", profile_json(1e6, "bf16"));
  config.parallel.micro_batch_tokens = 21;
  const Summary eight = run(config, 1);
  EXPECT_EQ(metrics_of(s, "eight").at(1).at("micro_batches"), 8);
  EXPECT_EQ(eight.last_loss, one.last_loss);
  EXPECT_TRUE(bytes_of(eight.checkpoint) == bytes_of(one.checkpoint));
}

TEST(GlobalBatch, MetricsAreOfTheWholeStep) {
  const Scratch s;
  write_texts(s, kSizes);
  Config config = global_batch_config(s, "run");
  config.run.record_placement = true;
  const Summary summary = run(config, 4);
  int64_t micro_batches = 0, steps = 0;
  for (const nlohmann::json& line : metrics_of(s, "run")) {
    if (!line.contains("loss") || line.contains("evaluation")) continue;
    ++steps;
    micro_batches += line.at("micro_batches").get<int64_t>();
    const auto lengths = line.at("lengths").get<std::vector<int64_t>>();
    std::map<int64_t, std::vector<std::pair<int64_t, int64_t>>> spans;  // [document of the batch]
    std::vector<int64_t> rank_tokens;
    for (const nlohmann::json& rank : line.at("placement")) {
      int64_t tokens = 0;
      for (const nlohmann::json& span : rank) {
        spans[span[0].get<int64_t>()].emplace_back(span[1].get<int64_t>(), span[2].get<int64_t>());
        tokens += span[2].get<int64_t>() - span[1].get<int64_t>();
      }
      rank_tokens.push_back(tokens);
    }
    EXPECT_EQ(line.at("rank_tokens").get<std::vector<int64_t>>(), rank_tokens);
    ASSERT_EQ(spans.size(), lengths.size());
    for (auto& [document, of] : spans) {
      std::sort(of.begin(), of.end());
      int64_t end = 0;
      for (const auto& [from, to] : of) {
        EXPECT_EQ(from, end);
        end = to;
      }
      EXPECT_EQ(end, lengths[static_cast<size_t>(document)]);
    }
    EXPECT_GT(line.at("arena_bytes").get<int64_t>(), 0);
    EXPECT_GT(line.at("peak_rss_bytes").get<int64_t>(), 0);
    EXPECT_GT(line.at("bound_seconds").get<double>(), 0);
    EXPECT_GE(line.at("modelled_seconds").get<double>(), line.at("bound_seconds").get<double>() * (1 - 1e-9));
    EXPECT_GT(
        line.at("attention_sent_bytes")[0][1].get<int64_t>() + line.at("attention_sent_bytes")[1][0].get<int64_t>(), 0);
  }
  EXPECT_EQ(steps, 6);
  EXPECT_GT(micro_batches, steps);
  EXPECT_EQ(summary.plans.ready + summary.plans.waits, micro_batches);
  EXPECT_EQ(summary.plans.made + summary.plans.hits, micro_batches);
  // All but those of the first step.
  EXPECT_EQ(summary.plans.made - summary.plans.made_ahead,
            metrics_of(s, "run").at(1).at("micro_batches").get<int64_t>());
  EXPECT_EQ(read_run(s.path("run")).steps.at(0).micro_batches,
            metrics_of(s, "run").at(1).at("micro_batches").get<int64_t>());
}

TEST(GlobalBatch, WhatCannotBeCutIsRefusedBeforeDataIsRead) {
  const Scratch s;
  const auto refusal = [&](int32_t ranks, const auto& change) {
    Config config = global_batch_config(s, "run");
    config.data.path = s.path("nowhere");
    change(&config);
    return error_of([&] { run(config, ranks); });
  };
  EXPECT_THAT(refusal(4, [](Config* c) { c->parallel.micro_batch_tokens = 3; }),
              HasSubstr("micro_batch_tokens must be at least a token for each of the 4 ranks, it is 3"));
  EXPECT_THAT(refusal(4, [](Config* c) { c->parallel.micro_batch_tokens = 47; }),
              AllOf(HasSubstr("a document of data.max_document_tokens has 48 tokens and a micro-batch holds 44, 11 on"),
                    HasSubstr("raise micro_batch_tokens from 47 to 48")));
  EXPECT_THAT(refusal(4, [](Config* c) { c->parallel.memory_budget = 1000; }), HasSubstr("the model's states take"));
  EXPECT_THAT(refusal(4, [](Config* c) { c->parallel.batch_planner = "flexsp"; }), HasSubstr("a clock stops"));
  EXPECT_THAT(refusal(4, [](Config* c) { c->parallel.batch_planner = "static_"; }),
              HasSubstr("did you mean 'static'?"));
  EXPECT_THAT(refusal(3, [](Config* c) { c->parallel.batch_planner = "megatron_dynamic"; }),
              HasSubstr("another planner"));
  EXPECT_THAT(refusal(4, [](Config* c) { c->parallel.micro_batch_tokens = 151; }),
              HasSubstr("parallel.micro_batch_tokens must be at most data.batch_tokens"));
  EXPECT_THAT(refusal(4,
                      [](Config* c) {
                        c->parallel.micro_batch_tokens = 0;
                        c->parallel.batch_planner = "wlb";
                      }),
              HasSubstr("parallel.batch_planner is \"wlb\", which has no effect without"));
  EXPECT_THAT(refusal(4, [](Config*) {}), HasSubstr("nowhere does not exist"));
}

TEST(GlobalBatch, OtherLimitsAreNotedAtAResume) {
  const Scratch s;
  const Config before = without_micro_batches(global_batch_config(s, "run"));
  Config now = before;
  now.parallel.micro_batch_tokens = 64;
  now.parallel.batch_planner = "wlb";
  EXPECT_THAT(resume_notes(now, to_toml(before), 2),
              ElementsAre(AllOf(HasSubstr("other settings than the checkpoint's: parallel.micro_batch_tokens was 0 and "
                                          "is 64"),
                                HasSubstr("parallel.batch_planner was 'auto' and is 'wlb'"))));
}

// Without a profile batches are cut by operations; no time is modelled then.
TEST(GlobalBatch, NeedsNoProfile) {
  const Scratch s;
  write_texts(s, kSizes);
  Config config = global_batch_config(s, "run");
  config.parallel.profile = "";
  const Summary many = run(config, 2);
  config.run.folder = s.path("one");
  EXPECT_LE(weight_distance(many.checkpoint, run(without_micro_batches(config), 1).checkpoint), 1e-8);
  const nlohmann::json step = metrics_of(s, "run").at(1);
  EXPECT_GT(step.at("micro_batches").get<int64_t>(), 2);
  EXPECT_FALSE(step.contains("modelled_seconds"));
}

// A budget that holds a few tokens more than the states cuts batches too.
TEST(GlobalBatch, MemoryCutsBatches) {
  const Scratch s;
  write_texts(s, kSizes);
  Config config = global_batch_config(s, "run");
  config.parallel.micro_batch_tokens = 0;
  config.parallel.memory_budget = 1;
  const std::string text = error_of([&] { run(config, 2); });
  const std::string before = "give at least ";
  ASSERT_THAT(text, HasSubstr(before));
  config.parallel.memory_budget = std::stoll(text.substr(text.rfind(before) + before.size()));
  const std::string more = error_of([&] { run(config, 2); });  // holds a token a rank
  const std::string to = join_text("raise memory_budget from ", config.parallel.memory_budget, " to ");
  ASSERT_THAT(more, HasSubstr(to));
  config.parallel.memory_budget = std::stoll(more.substr(more.find(to) + to.size()));
  const Summary many = run(config, 2);
  config.run.folder = s.path("one");
  EXPECT_LE(weight_distance(many.checkpoint, run(without_micro_batches(config), 1).checkpoint), 1e-8);
  EXPECT_GT(metrics_of(s, "run").at(1).at("micro_batches").get<int64_t>(), 2);
}

}  // namespace
}  // namespace evenspan::train
