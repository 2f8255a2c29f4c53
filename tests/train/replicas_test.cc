// Runs of several replicas: what one rank trains, exactly, with micro-batches of each replica's own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <map>
#include <set>

#include "evenspan/core/error.h"
#include "evenspan/train/report.h"
#include "train/resume_notes.h"
#include "train/small_run.h"
#include "train/step_report.h"
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

// Batches of 150 tokens in two parts; micro-batches of 50, on a machine whose profile is there.
Config replicas_config(const Scratch& s, const std::string& folder, int64_t replicas) {
  Config config = small_run(s, llama_json(2), folder);
  config.parallel.profile = s.write("profile.json", profile_json(1e6, config.model.dtype));
  config.parallel.micro_batch_tokens = 50;
  config.parallel.replicas = replicas;
  return config;
}

Config on_one_rank(Config config) {
  config.parallel = ParallelConfig();
  config.parallel.threads_per_rank = 1;
  return config;
}

std::vector<nlohmann::json> steps_of(const Scratch& s, const std::string& run) {
  std::vector<nlohmann::json> steps;
  for (const nlohmann::json& line : metrics_of(s, run)) {
    if (line.contains("loss") && !line.contains("evaluation")) steps.push_back(line);
  }
  return steps;
}

// Attention's bytes between ranks of different replicas, and inside.
std::pair<int64_t, int64_t> outside_and_inside(const nlohmann::json& step, int64_t ranks_of_replica) {
  std::pair<int64_t, int64_t> bytes;
  const auto matrix = step.at("attention_sent_bytes").get<std::vector<std::vector<int64_t>>>();
  for (size_t from = 0; from < matrix.size(); ++from) {
    for (size_t to = 0; to < matrix.size(); ++to) {
      const bool inside = static_cast<int64_t>(from) / ranks_of_replica == static_cast<int64_t>(to) / ranks_of_replica;
      (inside ? bytes.second : bytes.first) += matrix[from][to];
    }
  }
  return bytes;
}

struct MeshCase {
  int32_t ranks, replicas;
  bool cuts;  // into micro-batches
};
class Replicas : public ::testing::TestWithParam<MeshCase> {};
INSTANTIATE_TEST_SUITE_P(Meshes, Replicas,
                         ::testing::Values(MeshCase{4, 2, true}, MeshCase{4, 4, true}, MeshCase{3, 3, true},
                                           MeshCase{4, 2, false}, MeshCase{3, 3, false}),
                         [](const auto& i) {
                           return std::to_string(i.param.ranks) + "Ranks" + std::to_string(i.param.replicas) +
                                  "Replicas" + (i.param.cuts ? "Cut" : "Whole");
                         });

TEST_P(Replicas, TrainWhatOneRankTrains) {
  const MeshCase& of = GetParam();
  const Scratch s;
  write_texts(s, kSizes);
  Config config = replicas_config(s, "straight", of.replicas);
  if (!of.cuts) {
    config.parallel = ParallelConfig();
    config.parallel.replicas = of.replicas;
    config.parallel.threads_per_rank = 1;
  }
  config.run.steps = 50;
  config.run.eval_interval = 20;
  const Summary straight = run(config, of.ranks);

  Config reference = on_one_rank(config);
  reference.run.folder = s.path("one");
  const Summary one = run(reference, 1);
  // The rule for float64 of compare_runs(): distance of the weights 1e-8, first loss 1e-6.
  const Comparison comparison = compare_runs(s.path("straight"), s.path("one"), {});
  EXPECT_TRUE(comparison.equal) << comparison_table(comparison);
  EXPECT_LE(comparison.largest_loss_difference, 1e-8);
  EXPECT_NEAR(straight.held_out_loss, one.held_out_loss, 1e-8);
  EXPECT_LT(one.last_loss, one.first_loss);
  EXPECT_THAT(comparison_table(comparison),
              HasSubstr(join_text("replicas: ", of.replicas, " of ", of.ranks / of.replicas, " rank")));
  EXPECT_THAT(comparison_page(comparison), HasSubstr(join_text(of.ranks, " ranks in ", of.replicas, " replicas")));

  int64_t unequal = 0, inside = 0;
  for (const nlohmann::json& step : steps_of(s, "straight")) {
    const auto counts = step.at("replica_micro_batches").get<std::vector<int64_t>>();
    ASSERT_EQ(counts.size(), static_cast<size_t>(of.replicas));
    const auto [least, most] = std::minmax_element(counts.begin(), counts.end());
    unequal += *least != *most ? 1 : 0;
    EXPECT_EQ(step.at("micro_batches"), *most);
    const auto [between, within] = outside_and_inside(step, of.ranks / of.replicas);
    EXPECT_EQ(between, 0);
    inside += within;
  }
  EXPECT_TRUE(!of.cuts || unequal > 5) << unequal;
  EXPECT_EQ(inside > 0, of.ranks > of.replicas);

  config.run.folder = s.path("broken");
  config.optimizer.decay_steps = 50;
  config.run.steps = 23;
  run(config, of.ranks);
  config.run.steps = 50;
  config.run.resume = "latest";
  const Summary resumed = run(config, of.ranks);
  EXPECT_EQ(resumed.last_loss, straight.last_loss);
  EXPECT_TRUE(bytes_of(resumed.checkpoint) == bytes_of(straight.checkpoint));

  // With other replicas and ranks from the checkpoint on: other rounding, the same training.
  config.run.resume = s.path("broken/checkpoints/step-00000023");
  config.run.folder = s.path("other");
  config.parallel.replicas = of.replicas == 2 ? 3 : 2;
  EXPECT_LE(weight_distance(run(config, 6).checkpoint, one.checkpoint), 1e-8);
}

// Steps of one or two documents: the replica that gets none joins the sums alone, in training and in evaluation.
TEST(ReplicasRun, ReplicasWithoutDocuments) {
  const Scratch s;
  write_texts(s, kSizes);
  Config config = replicas_config(s, "many", 3);
  config.parallel = ParallelConfig();
  config.parallel.replicas = 3;
  config.data.batch_tokens = 48;
  config.data.held_out_fraction = 0.2;
  config.run.record_placement = true;
  config.run.steps = 10;
  const Summary many = run(config, 3);
  const Config alone = [&] {
    Config c = on_one_rank(config);
    c.run.folder = s.path("one");
    return c;
  }();
  const Summary one = run(alone, 1);
  EXPECT_LE(weight_distance(many.checkpoint, one.checkpoint), 1e-8);
  EXPECT_NEAR(many.held_out_loss, one.held_out_loss, 1e-8);
  int64_t empty = 0;
  for (const nlohmann::json& step : steps_of(s, "many")) {
    for (size_t replica = 0; replica < 3; ++replica) {
      const bool none = step.at("replica_micro_batches")[replica] == 0;
      EXPECT_EQ(step.at("rank_tokens")[replica] == 0, none);
      EXPECT_EQ(step.at("placement")[replica].empty(), none);
      empty += none ? 1 : 0;
    }
  }
  EXPECT_GT(empty, 0);
}

TEST(ReplicasRun, MetricsAreOfAllReplicas) {
  const Scratch s;
  write_texts(s, kSizes);
  Config config = replicas_config(s, "run", 2);
  config.run.record_placement = true;
  run(config, 4);
  EXPECT_EQ(metrics_of(s, "run").at(0).at("run").at("replicas"), 2);
  double most_seconds = 0;
  for (const nlohmann::json& step : steps_of(s, "run")) {
    const auto lengths = step.at("lengths").get<std::vector<int64_t>>();
    std::map<int64_t, int64_t> tokens;              // [document]
    std::map<int64_t, std::set<int64_t>> replicas;  // [document]
    const auto placement = step.at("placement").get<std::vector<std::vector<std::vector<int64_t>>>>();
    ASSERT_EQ(placement.size(), 4u);
    for (size_t rank = 0; rank < 4; ++rank) {
      int64_t own = 0;
      for (const std::vector<int64_t>& span : placement[rank]) {
        own += span[2] - span[1];
        tokens[span[0]] += span[2] - span[1];
        replicas[span[0]].insert(static_cast<int64_t>(rank / 2));
      }
      EXPECT_EQ(step.at("rank_tokens")[rank], own);
      EXPECT_GT(step.at("rank_work_seconds")[rank].get<double>(), 0);
    }
    ASSERT_EQ(tokens.size(), lengths.size());
    for (const auto& [document, count] : tokens) {
      EXPECT_EQ(count, lengths[static_cast<size_t>(document)]);
      EXPECT_EQ(replicas[document].size(), 1u);
    }
    EXPECT_GE(step.at("modelled_seconds").get<double>(), step.at("bound_seconds").get<double>() * (1 - 1e-9));
    EXPECT_GT(step.at("forward_sent_bytes").get<int64_t>(), 0);
    EXPECT_EQ(step.at("plan_strategy"), "mixed");
    most_seconds = std::max(most_seconds, step.at("modelled_seconds").get<double>());
  }
  EXPECT_GT(most_seconds, 0);
  EXPECT_EQ(read_run(s.path("run")).num_replicas, 2);
}

TEST(ReplicasRun, WhatDoesNotFitTheRanksIsRefusedBeforeDataIsRead) {
  const Scratch s;
  const auto refusal = [&](int32_t ranks, const auto& change) {
    Config config = replicas_config(s, "run", 2);
    config.data.path = s.path("nowhere");
    change(&config);
    return error_of([&] { run(config, ranks); });
  };
  EXPECT_THAT(refusal(3, [](Config*) {}),
              HasSubstr("[mesh] replicas have the same number of ranks, at least one each, but 2 do not "
                        "divide 3 ranks; give as many replicas as one of 1, 3"));
  EXPECT_THAT(refusal(6, [](Config* c) { c->parallel.ranks_per_node = 2; }),
              HasSubstr("2 replicas of 3 ranks do not on nodes of 2 ranks; give one of 1, 3, 6 replicas"));
  EXPECT_THAT(refusal(4, [](Config* c) { c->parallel.micro_batch_tokens = 1; }),
              HasSubstr("micro_batch_tokens must be at least a token for each of the 2 ranks"));
  EXPECT_THAT(refusal(4,
                      [](Config* c) {
                        c->parallel.strategy = "hierarchical";
                        c->parallel.ranks_per_group = 4;
                      }),
              HasSubstr("groups of 4 ranks do not divide 2 ranks"));
  EXPECT_THAT(refusal(4, [](Config*) {}), HasSubstr("nowhere does not exist"));
  EXPECT_THAT(error_of([&] { parse_config("[parallel]\nreplicas = 0\n", "run.toml", "/", {}); }),
              HasSubstr("parallel.replicas"));
}

TEST(ReplicasRun, OtherReplicasAreNotedAtAResume) {
  const Scratch s;
  Config config = replicas_config(s, "run", 2);
  const std::string before = to_toml(config);
  config.parallel.replicas = 4;
  EXPECT_THAT(resume_notes(config, before, 3),
              ElementsAre("other settings than the checkpoint's: parallel.replicas was 2 and is 4"));
}

TEST(ReplicasRun, DivisionsThatDifferAreNamedOnAllRanks) {
  comm::run_threads(4, [](const comm::Communicator& communicator) {
    PlannedBatch planned;
    planned.replicas.resize(2);
    planned.replicas[0].documents = {{0, 2}};
    planned.replicas[1].documents = {{1}, {3}};
    compare_divisions(planned, communicator);
    if (communicator.rank() == 3) planned.replicas[1].documents = {{1, 3}};
    EXPECT_THAT(error_of([&] { compare_divisions(planned, communicator); }),
                AllOf(HasSubstr("[train: division] ranks 0 and 3 hold different divisions of the step"),
                      HasSubstr("give every rank the same data and configuration")));
  });
}

}  // namespace
}  // namespace evenspan::train
