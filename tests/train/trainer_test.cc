// Whole training runs on thread ranks: equal to one rank, resumed, with ranks and batches that have nothing to count.
#include "evenspan/train/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <fstream>
#include <set>

#include "evenspan/comm/communicator.h"
#include "evenspan/core/error.h"
#include "evenspan/nn/safetensors.h"
#include "evenspan/train/checkpoint.h"
#include "evenspan/train/report.h"
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
using ::testing::HasSubstr;

Config make_config(const Scratch& s, const std::string& run) { return small_run(s, llama_json(2), run); }

class Equality : public ::testing::TestWithParam<std::tuple<int32_t, const char*>> {};

TEST_P(Equality, ManyRanksTrainWhatOneTrains) {
  const auto [ranks, strategy] = GetParam();
  const Scratch s;
  write_texts(s, kSizes);
  const Summary one = run(make_config(s, "one"), 1);
  Config config = make_config(s, "many");
  config.parallel.strategy = strategy;
  const Summary many = run(config, ranks);
  EXPECT_LT(one.last_loss, one.first_loss);
  EXPECT_NEAR(many.first_loss, one.first_loss, 1e-10);
  EXPECT_NEAR(many.last_loss, one.last_loss, 1e-8);
  EXPECT_NEAR(many.held_out_loss, one.held_out_loss, 1e-8);
  const double distance = weight_distance(many.checkpoint, one.checkpoint);
  EXPECT_LE(distance, 1e-8);
  const Comparison comparison = compare_runs(s.path("many"), s.path("one"), {});
  EXPECT_TRUE(comparison.equal);
  EXPECT_THAT(comparison_table(comparison), HasSubstr("EQUAL"));
  EXPECT_THAT(comparison_page(comparison), AllOf(HasSubstr("<svg"), ::testing::Not(HasSubstr("<script"))));
}

INSTANTIATE_TEST_SUITE_P(Ranks, Equality,
                         ::testing::Values(std::tuple{2, "sequence_aware"}, std::tuple{3, "sequence_aware"},
                                           std::tuple{4, "sequence_aware"}, std::tuple{4, "hierarchical"},
                                           std::tuple{3, "ulysses"}, std::tuple{2, "zigzag"}));

// Ranks choose for themselves: another choice on one of them would be refused before the first exchange.
TEST(Trainer, AutoTrainsWhatOneRankTrains) {
  const Scratch s;
  write_texts(s, kSizes);
  const Summary one = run(make_config(s, "one"), 1);
  std::vector<std::set<std::string>> strategies;
  for (const double bytes_per_second : {1.0, 1e12}) {
    s.write("profile.json", profile_json(bytes_per_second));
    Config config = make_config(s, join_text("auto ", bytes_per_second));
    config.parallel.strategy = "auto";
    config.parallel.profile = s.path("profile.json");
    s.write("topology.json", R"({"ranks": 2, "cores": 2})");
    config.parallel.topology = s.path("topology.json");
    const Summary many = run(config, 2);
    EXPECT_LE(weight_distance(many.checkpoint, one.checkpoint), 1e-8);
    auto& seen = strategies.emplace_back();
    for (const nlohmann::json& line : metrics_of(s, join_text("auto ", bytes_per_second))) {
      if (line.contains("plan_strategy")) seen.insert(line["plan_strategy"].get<std::string>());
    }
  }
  // A byte a second: nothing may travel, and nothing does in a mixed plan whose documents are all whole.
  EXPECT_THAT((std::vector<std::string>{strategies[0].begin(), strategies[0].end()}),
              ::testing::IsSubsetOf({"local", "mixed"}));
  EXPECT_THAT(strategies[1], ::testing::Not(::testing::Contains("auto")));
  EXPECT_NE(strategies[0], strategies[1]);
}

TEST(Trainer, RefusesProfilesOfOtherShapes) {
  const Scratch s;
  write_texts(s, kSizes);
  Config config = make_config(s, "run");
  config.parallel.strategy = "auto";
  EXPECT_THAT(error_of([&] { run(config, 1); }),
              HasSubstr("(auto chooses for the machine of the profile h100-sxm, since none is named"));
  config.parallel.profile = "h100-sxm";
  EXPECT_THAT(error_of([&] { run(config, 1); }),
              HasSubstr("h100-sxm has no attention times of head dimension 4 in f64"));
  config.parallel.topology = s.path("topology.json");
  s.write("topology.json", R"({"ranks": 2})");
  s.write("profile.json", profile_json(1e9));
  config.parallel.profile = s.path("profile.json");
  EXPECT_THAT(error_of([&] { run(config, 1); }), HasSubstr("topology.json has 2 ranks, there are 1"));
  config.parallel.profile = "";
  config.parallel.strategy = "zigzag";
  EXPECT_THAT(error_of([&] { run(config, 1); }), HasSubstr("topology.json has no effect with zigzag and no profile"));
  config.parallel = {};
  config.parallel.profile = "h100";
  EXPECT_THAT(error_of([&] { run(config, 1); }), HasSubstr("did you mean 'h100-sxm'?"));
}

TEST(Trainer, PlansTheNextBatchWhileOneRuns) {
  const Scratch s;
  write_texts(s, kSizes);
  Config config = make_config(s, "run");
  config.run.eval_interval = 2;
  const Summary summary = run(config, 2);
  EXPECT_EQ(summary.plans.ready + summary.plans.waits, 6);
  EXPECT_EQ(summary.plans.made + summary.plans.hits, 6);
  EXPECT_EQ(summary.plans.made - summary.plans.made_ahead, 1);  // the first step's
  const auto& evaluation = summary.evaluation_plans;
  const int64_t times = 3;  // after steps 2, 4 and 6
  EXPECT_EQ(evaluation.hits, (times - 1) * evaluation.made);
  EXPECT_GT(evaluation.made, 0);
  int64_t ahead = 0;
  for (const nlohmann::json& line : metrics_of(s, "run")) ahead += line.value("planned_ahead", false) ? 1 : 0;
  EXPECT_EQ(ahead, 5);
}

TEST(Trainer, RepackedDocumentsAreTheSameMathematics) {
  const Scratch s;
  write_texts(s, kSizes);
  const Summary one = run(make_config(s, "one"), 1);
  Config config = make_config(s, "repacked");
  config.data.pack_order = 3;
  EXPECT_LE(weight_distance(run(config, 1).checkpoint, one.checkpoint), 1e-8);
}

TEST(Resume, IsBitIdenticalOnTheSameRanks) {
  for (const char* dtype : {"float32", "bfloat16"}) {
    const Scratch s;
    write_texts(s, kSizes);
    Config config = make_config(s, "straight");
    config.model.dtype = dtype;
    const Summary straight = run(config, 2);
    config.run.folder = s.path("broken");
    config.run.checkpoint_interval = 2;
    config.optimizer.decay_steps = 6;  // the schedule must not end where the first part does
    config.run.steps = 4;
    run(config, 2);
    config.run.steps = 6;
    config.run.resume = "latest";
    const Summary resumed = run(config, 2);
    EXPECT_EQ(resumed.steps, 6);
    EXPECT_EQ(resumed.last_loss, straight.last_loss);
    EXPECT_TRUE(bytes_of(resumed.checkpoint) == bytes_of(straight.checkpoint)) << dtype;
    // The metrics go on where they were.
    const RunRecord record = read_run(s.path("broken"));
    ASSERT_EQ(record.steps.size(), 6u);
    for (size_t i = 0; i < 6; ++i) EXPECT_EQ(record.steps[i].step, static_cast<int64_t>(i + 1));
  }
}

TEST(Resume, OnAnotherNumberOfRanks) {
  const Scratch s;
  write_texts(s, kSizes);
  const Summary straight = run(make_config(s, "straight"), 3);
  for (const int32_t ranks : {1, 2, 4}) {
    Config config = make_config(s, "broken" + std::to_string(ranks));
    config.run.steps = 3;
    config.optimizer.decay_steps = 6;
    run(config, 3);
    config.run.steps = 6;
    config.run.resume = latest_checkpoint(config.run.folder + "/checkpoints");
    EXPECT_LE(weight_distance(run(config, ranks).checkpoint, straight.checkpoint), 1e-8) << ranks << " ranks";
    EXPECT_THAT(error_of([&] { read_run(config.run.folder); }), HasSubstr("step 1 ran on 3 and the last on"));
  }
}

TEST(Resume, KeepsTheNewestCheckpoints) {
  const Scratch s;
  write_texts(s, kSizes);
  Config config = make_config(s, "run");
  config.run.checkpoint_interval = 1;
  config.run.keep_checkpoints = 2;
  run(config, 2);
  int64_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(config.run.folder + "/checkpoints")) {
    EXPECT_THAT(entry.path().filename().string(), ::testing::StartsWith("step-"));
    ++count;
  }
  EXPECT_EQ(count, 2);
  EXPECT_THAT(latest_checkpoint(config.run.folder + "/checkpoints"), HasSubstr("step-00000006"));
}

TEST(Resume, OtherModelsAndDataAreRefused) {
  const Scratch s;
  write_texts(s, kSizes);
  Config config = make_config(s, "run");
  config.run.steps = 1;
  const std::string checkpoint = run(config, 2).checkpoint;
  config.run.resume = checkpoint;
  const auto refusal = [&](const Config& c) { return error_of([&] { run(c, 2); }); };

  Config other = config;
  other.model.config = s.write("deeper.json", llama_json(3));
  EXPECT_THAT(refusal(other), HasSubstr("is of another model than model.config: num_hidden_layers: 2 against 3"));
  other = config;
  other.data.seed = 9;
  EXPECT_THAT(refusal(other), HasSubstr("resumes with the data that it was trained on"));
  other = config;
  other.model.dtype = "float32";
  EXPECT_THAT(refusal(other), HasSubstr("model.dtype"));
  other.run.resume = s.path("text");
  EXPECT_THAT(refusal(other), HasSubstr("must be a checkpoint folder"));
  other.run.resume = s.path("nowhere");
  EXPECT_THAT(refusal(other), HasSubstr("nowhere does not exist"));

  other = config;
  other.run.resume = "";
  EXPECT_THAT(refusal(other), HasSubstr("it begins with step 1 and"));
}

TEST(Trainer, StartsFromGivenWeights) {
  const Scratch s;
  write_texts(s, kSizes);
  Config config = make_config(s, "first");
  config.data.held_out_fraction = 0.2;
  const Summary first = run(config, 2);
  config.model.weights = first.checkpoint;
  EXPECT_THAT(error_of([&] { run(config, 1); }), HasSubstr("has no tokenizer"));
  config.data.tokenizer = kBytes;
  config.run.folder = s.path("second");
  config.run.steps = 1;
  config.optimizer.learning_rate = 0;
  EXPECT_NEAR(run(config, 3).held_out_loss, first.held_out_loss, 1e-12);
  config.model.config = s.write("deeper.json", llama_json(3));
  EXPECT_THAT(error_of([&] { run(config, 1); }), HasSubstr("model.weights is of another model"));
}

// More ranks than tokens: some ranks have no rows in any batch and take part in everything all the same.
TEST(Trainer, RanksWithoutTokens) {
  const Scratch s;
  write_texts(s, {1, 1, 2});
  Config config = make_config(s, "one");
  config.data.held_out_fraction = 0;
  config.data.batch_tokens = 3;
  config.data.max_document_tokens = 3;
  const Summary one = run(config, 1);
  config.run.folder = s.path("many");
  config.parallel.strategy = "local";
  const Summary many = run(config, 4);
  EXPECT_LE(weight_distance(many.checkpoint, one.checkpoint), 1e-8);
  EXPECT_TRUE(std::isnan(many.held_out_loss));
}

// Documents of one token have no next token: the loss is 0 and only weight decay acts.
TEST(Trainer, BatchesWithoutLabels) {
  const Scratch s;
  write_texts(s, {3, 2});
  Config config = make_config(s, "run");
  config.data.held_out_fraction = 0;
  config.data.max_document_tokens = 1;
  config.data.batch_tokens = 2;
  for (const int32_t ranks : {1, 3}) {
    config.run.folder = s.path("run" + std::to_string(ranks));
    const Summary summary = run(config, ranks);
    EXPECT_EQ(summary.first_loss, 0);
    EXPECT_EQ(summary.last_loss, 0);
  }
}

TEST(Trainer, MetricsSayWhatHappened) {
  const Scratch s;
  write_texts(s, kSizes);
  Config config = make_config(s, "run");
  config.run.record_placement = true;
  config.run.eval_interval = 3;
  run(config, 2);
  std::ifstream in(s.path("run/metrics.jsonl"));
  int64_t steps = 0, evaluations = 0, finals = 0;
  for (std::string line; std::getline(in, line);) {
    const auto json = nlohmann::json::parse(line);
    evaluations += json.contains("evaluation");
    finals += json.contains("final");
    if (!json.contains("loss")) continue;
    ++steps;
    int64_t placed = 0;
    for (const auto& rank : json.at("placement")) {
      for (const auto& span : rank) placed += span[2].get<int64_t>() - span[1].get<int64_t>();
    }
    EXPECT_EQ(placed, json.at("tokens").get<int64_t>());
    EXPECT_EQ(json.at("rank_tokens").size(), 2u);
    EXPECT_GT(json.at("optimizer_sent_bytes")[0][1].get<int64_t>(), 0);
    EXPECT_EQ(json.at("attention_sent_bytes")[0][0].get<int64_t>(), 0);
  }
  EXPECT_EQ(steps, 6);
  EXPECT_EQ(evaluations, 2);
  EXPECT_EQ(finals, 1);
}

TEST(Trainer, WhatCannotBeTrainedIsRefused) {
  const Scratch s;
  write_texts(s, kSizes);
  const auto refusal = [](const Config& c) { return error_of([&] { run(c, 2); }); };
  Config config = make_config(s, "run");
  config.data.max_document_tokens = 100;
  EXPECT_THAT(refusal(config), HasSubstr("max_position_embeddings, they are 100 and 64"));
  config = make_config(s, "run");
  config.parallel.strategy = "sequence_awar";
  config.data.path = s.path("nowhere");  // what needs no data is checked before it is read, and nothing is written
  EXPECT_THAT(refusal(config), HasSubstr("did you mean 'sequence_aware'?"));
  config.parallel = {};
  config.parallel.ranks_per_group = 3;
  EXPECT_THAT(refusal(config), HasSubstr("do not divide 2 ranks"));
  config.parallel = {};
  config.run.steps = 0;
  EXPECT_THAT(refusal(config), HasSubstr("run.steps must be at least 1, it is 0"));
  EXPECT_FALSE(std::filesystem::exists(s.path("run")));
  config = make_config(s, "file/run");  // below a file
  s.write("file", "");
  EXPECT_THAT(refusal(config), HasSubstr("cannot make the folder"));
  config = make_config(s, "run");
  config.model.config = s.write("tiny.json", llama_json(2).replace(llama_json(2).find("257"), 3, "256"));
  EXPECT_THAT(refusal(config), HasSubstr("vocab_size must be at least 257"));
  config = make_config(s, "run");
  config.data.path = s.path("nowhere");
  EXPECT_THAT(refusal(config), HasSubstr("does not exist"));
}

// Once a run wrote its checkpoints among the texts, and no later run could read them.
TEST(Trainer, RunsAndDataDoNotShareAFolder) {
  const Scratch s;
  write_texts(s, kSizes);
  const auto refusal = [&](const std::string& folder) {
    Config config = make_config(s, folder);
    return error_of([&] { run(config, 2); });
  };
  std::filesystem::create_directory_symlink(s.path("text"), s.path("link"));
  for (const char* folder : {"text", "text/", "text/run", "./text/../text/a/b", "link/run", "link"}) {
    EXPECT_THAT(refusal(folder), HasSubstr("run.folder must not be in data.path")) << folder;
  }
  EXPECT_THAT(refusal(""), HasSubstr("data.path must not be in run.folder"));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(s.path("text")), {}),
            static_cast<std::ptrdiff_t>(kSizes.size()));
  EXPECT_FALSE(std::filesystem::exists(s.path("checkpoints")));
  Config config = make_config(s, "text/run");
  config.run.steps = 1;
  config.data.exclude = {"run"};
  EXPECT_EQ(run(config, 2).steps, 1);
  std::filesystem::remove_all(s.path("text/run"));
  config = make_config(s, "texts");  // no part of a name
  config.run.steps = 1;
  EXPECT_EQ(run(config, 2).steps, 1);
}

TEST(Trainer, ARefusedRunLeavesNothing) {
  const Scratch s;
  write_texts(s, kSizes);
  Config config = make_config(s, "new/run");
  config.data.path = s.path("nowhere");
  EXPECT_THAT(error_of([&] { run(config, 2); }), HasSubstr("does not exist"));
  EXPECT_FALSE(std::filesystem::exists(s.path("new")));
  config = make_config(s, "new/run");
  config.run.resume = s.path("text");
  EXPECT_THAT(error_of([&] { run(config, 2); }), HasSubstr("must be a checkpoint folder"));
  EXPECT_FALSE(std::filesystem::exists(s.path("new")));
}

TEST(Resume, ARunsFolderNamesItsNewestCheckpoint) {
  const Scratch s;
  write_texts(s, kSizes);
  Config config = make_config(s, "run");
  config.run.steps = 2;
  const std::string checkpoint = run(config, 2).checkpoint;
  for (const char* resume : {"run", "run/", "run/checkpoints"}) {
    config.run.resume = s.path(resume);
    EXPECT_THAT(error_of([&] { run(config, 2); }), HasSubstr("the newest is " + checkpoint)) << resume;
  }
}

TEST(LearningRate, WarmsUpAndDecays) {
  OptimizerConfig c;
  c.learning_rate = 1;
  c.min_learning_rate = 0.1;
  c.warmup_steps = 4;
  EXPECT_EQ(learning_rate_at(c, 1, 20), 0.25);
  EXPECT_EQ(learning_rate_at(c, 4, 20), 1);
  EXPECT_NEAR(learning_rate_at(c, 12, 20), 0.55, 1e-12);
  EXPECT_NEAR(learning_rate_at(c, 20, 20), 0.1, 1e-12);
  c.decay_steps = 10;
  EXPECT_NEAR(learning_rate_at(c, 15, 20), 0.1, 1e-12);
  c.warmup_steps = 0;
  EXPECT_GT(learning_rate_at(c, 1, 20), 0.9);
}

}  // namespace
}  // namespace evenspan::train
