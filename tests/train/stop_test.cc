// Runs that are interrupted: they keep the step at work, say how to go on, and a resumed run is the uninterrupted one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <csignal>
#include <cstdlib>
#include <limits>
#include <sstream>
#include <thread>

#include "evenspan/comm/communicator.h"
#include "evenspan/train/checkpoint.h"
#include "evenspan/train/report.h"
#include "evenspan/train/stop_signals.h"
#include "files/input_file.h"
#include "train/console.h"
#include "train/resume_notes.h"
#include "train/small_run.h"
#include "train/thread_run.h"

namespace evenspan::train {
namespace {

using evenspan::testing::bytes_of;
using evenspan::testing::error_of;
using evenspan::testing::kSizes;
using evenspan::testing::llama_json;
using evenspan::testing::Scratch;
using evenspan::testing::small_run;
using evenspan::testing::write_texts;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Config stop_config(const Scratch& s, const std::string& run) { return small_run(s, llama_json(2), run); }

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

// One rank alone receives a signal, before it is asked the `step`th time: once a step and once a batch of evaluations.
Summary run_until(const Config& config, int32_t ranks, int32_t rank = 0, int64_t step = kNever,
                  int64_t* times = nullptr) {
  Summary summary;
  comm::run_threads(ranks, [&](const comm::Communicator& communicator) {
    int64_t asked = 0;
    const Stop stop{{}, [&] { return ++asked >= step && communicator.rank() == rank ? SIGTERM : 0; }};
    const Summary own = train(config, communicator, stop);
    if (communicator.rank() == 0) summary = own;
    if (communicator.rank() == rank && times != nullptr) *times = asked;
  });
  return summary;
}

TEST(Stop, AllRanksEndAfterTheSameStepAndGoOnBitForBit) {
  const Scratch s;
  write_texts(s, kSizes);
  Config config = stop_config(s, "straight");
  config.model.dtype = "float32";
  const Summary straight = run_until(config, 3);
  EXPECT_EQ(straight.stopped_by, 0);
  for (const int32_t rank : {0, 2}) {
    config.run.folder = s.path(join_text("stopped", rank));
    config.run.resume = "latest";  // of nothing is the beginning
    const Summary stopped = run_until(config, 3, rank, 4);
    EXPECT_EQ(stopped.stopped_by, SIGTERM);
    EXPECT_EQ(stopped.steps, 4);
    EXPECT_THAT(stopped.checkpoint, HasSubstr("step-00000004"));
    EXPECT_THAT(error_of([&] { read_run(config.run.folder); }), HasSubstr("4 steps and no end"));
    const Summary resumed = run_until(config, 3);
    EXPECT_EQ(resumed.last_loss, straight.last_loss);
    EXPECT_EQ(resumed.held_out_loss, straight.held_out_loss);
    EXPECT_TRUE(bytes_of(resumed.checkpoint) == bytes_of(straight.checkpoint));
    const RunRecord record = read_run(config.run.folder);
    const RunRecord whole = read_run(s.path("straight"));
    ASSERT_EQ(record.steps.size(), 6u);
    for (size_t i = 0; i < 6; ++i) {  // each document once
      EXPECT_EQ(record.steps[i].step, static_cast<int64_t>(i + 1));
      EXPECT_EQ(record.steps[i].tokens, whole.steps[i].tokens);
      EXPECT_EQ(record.steps[i].loss, whole.steps[i].loss);
    }
  }
}

// Of a run's metrics.
std::vector<std::string> evaluations_of(const std::string& folder) {
  std::vector<std::string> found;
  std::istringstream lines(files::read_text(folder + "/metrics.jsonl", "test"));
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line);
    if (json.contains("evaluation")) found.push_back(json["evaluation"].dump());
  }
  return found;
}

TEST(Stop, AnEvaluationEndsAfterTheBatchAtWorkAndIsMadeUpFor) {
  const Scratch s;
  write_texts(s, kSizes);
  Config config = stop_config(s, "straight");
  config.data.held_out_fraction = 0.5;
  config.data.batch_tokens = 60;
  config.run.eval_interval = 2;
  int64_t times = 0;
  const Summary straight = run_until(config, 2, 0, kNever, &times);
  const std::vector<std::string> evaluations = evaluations_of(config.run.folder);
  ASSERT_EQ(evaluations.size(), 3u);
  const int64_t batches = (times - 6) / 3;
  ASSERT_GT(batches, 2);
  config.run.resume = "latest";
  for (const int64_t asked : {int64_t{2}, int64_t{3}, int64_t{4}, 2 + batches, 2 + batches + 1}) {
    config.run.folder = s.path(join_text("stopped", asked));
    const int64_t last = asked <= 2 + batches ? 2 : 3;
    const Summary stopped = run_until(config, 2, 1, asked);
    EXPECT_EQ(stopped.stopped_by, SIGTERM);
    EXPECT_EQ(stopped.steps, last) << asked;
    EXPECT_EQ(checkpoint_step(stopped.checkpoint), last);
    EXPECT_EQ(evaluations_of(config.run.folder).size(), asked < 2 + batches ? 0u : 1u) << asked;
    const Summary again = run_until(config, 2, 0, 1);  // at once, in the evaluation that is made up for or after a step
    EXPECT_EQ(again.stopped_by, SIGTERM);
    EXPECT_EQ(again.steps, asked < 2 + batches ? 2 : last + 1);
    EXPECT_EQ(checkpoint_step(again.checkpoint), again.steps);
    const Summary resumed = run_until(config, 2);
    EXPECT_EQ(resumed.stopped_by, 0);
    EXPECT_TRUE(bytes_of(resumed.checkpoint) == bytes_of(straight.checkpoint)) << asked;
    EXPECT_EQ(evaluations_of(config.run.folder), evaluations) << asked;
  }
}

TEST(Stop, TheLastEvaluationEndsTooAndComesAgain) {
  const Scratch s;
  write_texts(s, kSizes);
  Config config = stop_config(s, "run");
  config.data.held_out_fraction = 0.5;
  config.data.batch_tokens = 60;
  config.run.resume = "latest";
  const Summary stopped = run_until(config, 2, 1, 7);
  EXPECT_EQ(stopped.stopped_by, SIGTERM);
  EXPECT_EQ(stopped.steps, 6);
  EXPECT_THAT(stopped.checkpoint, HasSubstr("step-00000006"));
  EXPECT_THAT(closing_text(config, stopped), HasSubstr("stopped by SIGTERM after step 6 of 6"));
  EXPECT_EQ(evaluations_of(config.run.folder).size(), 0u);
  int64_t times = 0;
  const Summary finished = run_until(config, 2, 1, kNever, &times);
  EXPECT_EQ(finished.stopped_by, 0);
  EXPECT_EQ(evaluations_of(config.run.folder).size(), 1u);
  const Summary told_last = run_until(config, 2, 1, times);  // when there is nothing left to stop
  EXPECT_EQ(told_last.stopped_by, 0);
  EXPECT_EQ(told_last.held_out_loss, finished.held_out_loss);
}

TEST(Stop, WithoutAFolderNothingIsKeptAndTheRunSaysSo) {
  const Scratch s;
  write_texts(s, kSizes);
  Config config = stop_config(s, "run");
  config.run.folder = "";
  const Summary stopped = run_until(config, 2, 1, 2);
  EXPECT_EQ(stopped.steps, 2);
  EXPECT_THAT(closing_text(config, stopped), HasSubstr("stopped by SIGTERM after step 2 of 6\nnothing is kept"));
  Summary kept = stopped;
  kept.checkpoint = "run/checkpoints/step-00000002";
  EXPECT_THAT(closing_text(config, kept), HasSubstr("the same command with --run.resume latest"));
}

TEST(Stop, ResumingAFinishedRunSaysThatNothingIsLeft) {
  const Scratch s;
  write_texts(s, kSizes);
  Config config = stop_config(s, "run");
  run_until(config, 1);
  config.run.resume = "latest";
  const Summary again = run_until(config, 1);
  EXPECT_THAT(closing_text(config, again), HasSubstr("nothing to do: all of 6 steps were done before"));
}

class Signals : public ::testing::Test {
 protected:
  void SetUp() override {
    ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
    for (const int signal : {SIGINT, SIGTERM}) std::signal(signal, SIG_DFL);  // a job in the background ignores SIGINT
  }
};

void wait_a_second_press() { std::this_thread::sleep_for(std::chrono::milliseconds(600)); }

TEST_F(Signals, EndTheProcessAtOnceBeforeTheFirstStep) {
  EXPECT_EXIT(
      {
        const StopSignals signals(/*speaks=*/true);
        std::raise(SIGTERM);
      },
      ::testing::ExitedWithCode(143), "SIGTERM before the first step; nothing was trained");
}

TEST_F(Signals, ASecondCtrlCEndsAtOnce) {
  EXPECT_EXIT(
      {
        const StopSignals signals(/*speaks=*/true);
        signals.stop().defer();
        std::raise(SIGINT);
        wait_a_second_press();
        std::raise(SIGINT);
      },
      ::testing::ExitedWithCode(130), "SIGINT: the run ends after the step.*\nevenspan train: SIGINT again");
}

TEST_F(Signals, WhatALauncherSendsTwiceIsOneWish) {
  const StopSignals signals(/*speaks=*/false);
  signals.stop().defer();
  EXPECT_EQ(signals.stop().received(), 0);
  std::raise(SIGINT);
  std::raise(SIGINT);
  std::raise(SIGTERM);
  wait_a_second_press();
  std::raise(SIGTERM);
  EXPECT_EQ(signals.stop().received(), SIGINT);
}

TEST_F(Signals, IgnoredOnesStayIgnored) {
  const auto before = std::signal(SIGHUP, SIG_IGN);
  {
    const StopSignals signals(/*speaks=*/false);
    std::raise(SIGHUP);  // nohup: before the first step, where it would end the process
    signals.stop().defer();
    std::raise(SIGHUP);
    EXPECT_EQ(signals.stop().received(), 0);
  }
  std::signal(SIGHUP, before);
}

TEST(Schedule, IsSaidInWords) {
  OptimizerConfig c;
  c.learning_rate = 1e-3;
  EXPECT_EQ(schedule_text(c, 100), "a cosine from 0.001 to 0 at step 100");
  c.warmup_steps = 10;
  c.min_learning_rate = 1e-4;
  c.decay_steps = 50;
  EXPECT_EQ(schedule_text(c, 100), "0 to 0.001 in 10 steps, then a cosine to 0.0001 at step 50, which stays");
  c.min_learning_rate = c.learning_rate;
  EXPECT_EQ(schedule_text(c, 100), "0 to 0.001 in 10 steps, then constant");
}

TEST(ResumeNotes, SayWhatBecomesOfTheLearningRate) {
  Config before;
  before.data.path = "text";
  before.model.config = "config.json";
  before.run.steps = 10;
  before.optimizer.learning_rate = 0.5;
  Config now = before;
  EXPECT_TRUE(resume_notes(now, to_toml(before), 6).empty());
  now.run.folder = "elsewhere";
  now.parallel.strategy = "ring";
  EXPECT_TRUE(resume_notes(now, to_toml(before), 6).empty());
  now.run.steps = 20;  // half way, the cosine is at a half; now at a quarter of its way
  EXPECT_THAT(
      resume_notes(now, to_toml(before), 10),
      ElementsAre("run.steps was 10 and is 20; the learning rate now goes a cosine from 0.5 to 0 at step 20, and "
                  "went a cosine from 0.5 to 0 at step 10: step 10 takes 0.25 instead of 0; "
                  "optimizer.decay_steps = 10 keeps the old end"));
  before.optimizer.decay_steps = now.optimizer.decay_steps = 10;
  EXPECT_THAT(resume_notes(now, to_toml(before), 6),
              ElementsAre("run.steps was 10 and is 20; every step that is left keeps the learning rate that it had"));
  now.run.steps = 10;
  now.optimizer.beta1 = 0.5;
  now.optimizer.weight_decay = 0;
  EXPECT_THAT(resume_notes(now, to_toml(before), 6),
              ElementsAre("other settings than the checkpoint's: optimizer.beta1 was 0.9 and is 0.5, "
                          "optimizer.weight_decay was 0.1 and is 0.0"));
  EXPECT_THAT(resume_notes(now, "[run]\nsteppes = 1\n", 6), ElementsAre(HasSubstr("is unknown")));
}

}  // namespace
}  // namespace evenspan::train
