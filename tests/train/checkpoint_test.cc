// Checkpoints whose files do not belong together, or do not say what a checkpoint may say.
#include "evenspan/train/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <filesystem>
#include <fstream>

#include "evenspan/comm/communicator.h"
#include "evenspan/train/report.h"
#include "evenspan/train/trainer.h"
#include "files/input_file.h"
#include "train/small_run.h"

namespace evenspan::train {
namespace {

using evenspan::testing::error_of;
using evenspan::testing::kSizes;
using evenspan::testing::Scratch;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::string kModel = R"({"model_type": "llama", "vocab_size": 257, "hidden_size": 8, "intermediate_size": 8,
                               "num_attention_heads": 2, "num_hidden_layers": 1, "max_position_embeddings": 64})";

void run(const Config& config) {
  comm::run_threads(1, [&](const comm::Communicator& communicator) { train(config, communicator); });
}

std::string text_of(const std::string& path) { return files::read_text(path, "test"); }

void write(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

// A run of two steps with a checkpoint after each.
class Broken : public ::testing::Test {
 protected:
  Broken() : config_(evenspan::testing::small_run(scratch_, kModel, "run")) {
    evenspan::testing::write_texts(scratch_, kSizes);
    config_.run.steps = 2;
    config_.run.checkpoint_interval = 1;
    run(config_);
    config_.run.steps = 3;
    config_.run.resume = "latest";
  }

  std::string path(int step, const std::string& file = "") const {
    return scratch_.path("run/checkpoints/step-0000000" + std::to_string(step) + (file.empty() ? "" : "/" + file));
  }
  std::string refusal() const {
    return error_of([this] { run(config_); });
  }
  // Changes trainer_state.json of the newest, as a program would that writes the manifest too.
  template <class F>
  std::string refusal_of_state(const F& change) const {
    const std::string was = text_of(path(2, kStateFile));
    auto json = nlohmann::json::parse(was);
    change(json);
    write(path(2, kStateFile), json.dump());
    std::filesystem::remove(path(2, kManifestFile));
    write(path(2, kManifestFile), make_manifest(path(2)));
    const std::string text = refusal();
    write(path(2, kStateFile), was);
    return text;
  }

  Scratch scratch_;
  Config config_;
};

TEST_F(Broken, AFlippedBitIsFoundAndTheOlderWholeOneNamed) {
  for (const char* file : {"config.json", "model.safetensors", kOptimizerFile, kStateFile, kManifestFile}) {
    const std::string was = text_of(path(2, file));
    for (const size_t at : {size_t{0}, was.size() / 2, was.size() - 2}) {
      std::string bytes = was;
      bytes[at] = static_cast<char>(bytes[at] ^ 4);
      write(path(2, file), bytes);
      EXPECT_THAT(refusal(), AllOf(HasSubstr(path(2) + " is broken: "), HasSubstr(path(1) + " is whole")))
          << file << " " << at;
    }
    write(path(2, file), was);
  }
  // Where the older one is broken too, nothing is promised.
  write(path(2, kOptimizerFile), text_of(path(2, kOptimizerFile)) + "x");
  write(path(1, "model.safetensors"), "");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("optimizer.safetensors has "), HasSubstr("no older checkpoint beside it")));
}

TEST_F(Broken, FilesOfAnotherStepAreFound) {
  std::filesystem::copy_file(path(1, kOptimizerFile), path(2, kOptimizerFile),
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_THAT(refusal(), HasSubstr("optimizer.safetensors has the checksum "));
}

TEST_F(Broken, FilesThatTheManifestDoesNotNameAreRefused) {
  std::filesystem::copy_file(path(2, "model.safetensors"), path(2, "model-00001-of-00002.safetensors"));
  EXPECT_THAT(refusal(), HasSubstr("manifest.json does not name model-00001-of-00002.safetensors"));
  std::filesystem::remove(path(2, "model-00001-of-00002.safetensors"));
  write(path(2, "README.md"), "a note of the user's");
  EXPECT_EQ(refusal(), "");
}

TEST_F(Broken, ACheckpointOfAnotherVersionIsNoDamage) {
  auto json = nlohmann::json::parse(text_of(path(2, kStateFile)));
  json["version"] = 1;
  write(path(2, kStateFile), json.dump());
  std::filesystem::remove(path(2, kManifestFile));
  EXPECT_THAT(refusal(), HasSubstr("has version 1, this program reads 2"));
}

// A cursor before the data once read memory before the list of documents.
TEST_F(Broken, EveryFieldOfTheStateIsChecked) {
  using nlohmann::json;
  const auto set = [this](const json::json_pointer& field, const json& value) {
    return refusal_of_state([&](json& state) { state[field] = value; });
  };
  const json::json_pointer next("/data/next"), epoch("/data/epoch");
  EXPECT_THAT(set(next, -2), HasSubstr("data.next is \"-2\"; it is from 0 to"));
  EXPECT_THAT(set(next, 1 << 20), HasSubstr("next is below the "));
  EXPECT_THAT(set(next, 1.5), HasSubstr("data.next is \"1.5\"; it is a whole number"));
  EXPECT_THAT(set(next, true), HasSubstr("data.next is \"true\""));
  EXPECT_THAT(set(epoch, INT64_MAX), HasSubstr("data.epoch"));
  EXPECT_THAT(set(json::json_pointer("/step"), -1), HasSubstr("step is \"-1\""));
  EXPECT_THAT(set(json::json_pointer("/step"), uint64_t{1} << 63), HasSubstr("below 2^63"));
  EXPECT_THAT(set(json::json_pointer("/step"), 7), HasSubstr("holds step 7"));
  EXPECT_THAT(set(json::json_pointer("/optimizer_updates"), 9), HasSubstr("optimizer_updates is \"9\""));
  EXPECT_THAT(set(json::json_pointer("/tokens_seen"), -5), HasSubstr("tokens_seen"));
  EXPECT_THAT(set(json::json_pointer("/data/fingerprint"), -5), HasSubstr("fingerprint"));
  EXPECT_THAT(set(json::json_pointer("/more"), 1), HasSubstr("a field \"more\" that means nothing here"));
  EXPECT_EQ(refusal_of_state([](json&) {}), "");
}

TEST_F(Broken, MetricsThatDoNotFitTheCheckpointAreRefusedAndStay) {
  const std::string file = scratch_.path("run/metrics.jsonl");
  const std::string settings = text_of(scratch_.path("run/config.toml"));
  const std::string was = text_of(file);
  config_.optimizer.beta1 = 0.5;  // would be in config.toml
  const auto refusal_of_metrics = [&](const std::string& lines) {
    write(file, lines);
    const std::string text = refusal();
    EXPECT_EQ(text_of(file), lines);
    EXPECT_EQ(text_of(scratch_.path("run/config.toml")), settings);
    return text;
  };
  const size_t first = was.find("{\"step\":1"), second = was.find("{\"step\":2");
  ASSERT_TRUE(first < second && second != was.npos) << was;
  const std::string header = was.substr(0, first), one = was.substr(first, second - first),
                    two = was.substr(second, was.find('\n', second) + 1 - second);
  const auto with_step = [&](int number) { return "{\"step\":" + std::to_string(number) + two.substr(9); };
  EXPECT_THAT(refusal_of_metrics(header + one), HasSubstr("metrics.jsonl ends with step 1 and the checkpoint is of "
                                                          "step 2; give the run.folder that the checkpoint is of"));
  EXPECT_THAT(refusal_of_metrics(header + one + one + two),
              HasSubstr("metrics.jsonl:3 is of step 1 and the step before it of 1; the steps of a run follow"));
  EXPECT_THAT(refusal_of_metrics(header + with_step(0) + two),
              HasSubstr("metrics.jsonl:3 is of step 2 and the step before it of 0"));
  EXPECT_THAT(refusal_of_metrics(header + one.substr(0, one.size() / 2) + "\n" + two),
              AllOf(HasSubstr("metrics.jsonl:2 is no JSON"), HasSubstr("move the file away to go on without it")));
  EXPECT_THAT(refusal_of_metrics(header + "{\"step\":\"1\"}\n" + two), HasSubstr("metrics.jsonl:2"));

  const auto steps_after = [&](const std::string& lines) {
    write(file, lines);
    EXPECT_EQ(refusal(), "");
    std::vector<int64_t> steps;
    for (const auto& step : read_run(scratch_.path("run")).steps) steps.push_back(step.step);
    std::filesystem::remove_all(path(3));
    return steps;
  };
  const std::string torn = with_step(3).substr(0, two.size() / 2);
  EXPECT_THAT(steps_after(header + one + two + torn), ElementsAre(1, 2, 3));  // as after a crash
  EXPECT_THAT(steps_after(header + one + two + with_step(3) + with_step(4)), ElementsAre(1, 2, 3));
  EXPECT_THAT(steps_after(header + two), ElementsAre(2, 3));  // of a run that went on from another folder
  EXPECT_THAT(steps_after(header), ElementsAre(3));
  std::filesystem::remove(file);
  EXPECT_EQ(refusal(), "");
}

TEST_F(Broken, CompareReadsNoBrokenWeights) {
  config_.run.steps = 2;
  EXPECT_LE(weight_distance(path(2), path(2)), 0.0);
  write(path(2, kOptimizerFile), "x");
  EXPECT_THAT(error_of([this] { weight_distance(path(1), path(2)); }), HasSubstr("is broken"));
}

}  // namespace
}  // namespace evenspan::train
