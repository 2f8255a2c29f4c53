#include "evenspan/train/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "evenspan/nn/model_config.h"
#include "train/scratch.h"

namespace evenspan::train {
namespace {

using evenspan::testing::error_of;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr const char* kLeast = "[data]\npath = 'text'\n[model]\nconfig = 'config.json'\n";

Config parse(const std::string& text, const Overrides& overrides = {}) {
  return parse_config(text, "run.toml", "/base", overrides);
}

TEST(Config, ReadsValuesOfEveryType) {
  const Config c =
      parse(std::string(kLeast) +
            "dtype = 'float64'\n[optimizer]\nlearning_rate = 1\nbeta2 = 0.99\n[run]\nsteps = 7\nfolder = 'out'\n"
            "record_placement = true\n");
  EXPECT_EQ(c.model.dtype, "float64");
  EXPECT_EQ(c.optimizer.learning_rate, 1.0);  // whole numbers are numbers
  EXPECT_EQ(c.optimizer.beta2, 0.99);
  EXPECT_EQ(c.run.steps, 7);
  EXPECT_TRUE(c.run.record_placement);
}

TEST(Config, TakesBothSpellingsOfTypes) {
  for (const auto& [text, type] : {std::pair{"f32", "float32"}, {"bf16", "bfloat16"}, {"double", "float64"}}) {
    EXPECT_EQ(parse(kLeast, {{"model.dtype", text}}).model.dtype, type);
  }
  EXPECT_THAT(error_of([] {
                parse(kLeast, {{"model.dtype", "half"}});
              }),
              HasSubstr("model.dtype must be one of float32, bfloat16, float64, it is \"float16\""));
}

TEST(Config, BytesMayHaveAUnit) {
  const auto budget = [](const std::string& value, const Overrides& overrides = {}) {
    return parse(std::string(kLeast) + "[parallel]\nmemory_budget = " + value + "\n", overrides).parallel.memory_budget;
  };
  EXPECT_EQ(budget("1000"), 1000);
  EXPECT_EQ(budget("'3MiB'"), 3 << 20);
  EXPECT_EQ(budget("0", {{"parallel.memory_budget", "80GiB"}}), int64_t{80} << 30);
  EXPECT_THAT(
      error_of([&] { budget("'80GB'"); }),
      HasSubstr("run.toml:6: parallel.memory_budget is \"80GB\"; give a whole number of bytes, KiB, MiB or GiB, "
                "such as 1000, 64KiB, 8MiB or 2GiB; did you mean '80GiB'?"));
  for (const char* text : {"'9999999999GiB'", "'-9223372036854775807GiB'", "'-9999999999999999999'"}) {
    EXPECT_THAT(error_of([&] { budget(text); }), HasSubstr("beyond 9223372036854775807 bytes")) << text;
  }
  EXPECT_THAT(error_of([&] { budget("1.5"); }), HasSubstr("must be a value of type bytes, it is 1.5"));
  EXPECT_THAT(error_of([&] { budget("'-1KiB'"); }), HasSubstr("parallel.memory_budget must be from 0 to"));
}

TEST(Config, PathsStartAtTheFileAndOnTheCommandLineAtTheWorkingFolder) {
  const Config c = parse(kLeast, {{"run.folder", "out"}});
  EXPECT_EQ(c.data.path, "/base/text");
  EXPECT_EQ(c.model.config, "/base/config.json");
  EXPECT_EQ(c.run.folder, (std::filesystem::current_path() / "out").string());
}

TEST(Config, OverridesComeLast) {
  const Config c = parse(std::string(kLeast) + "[run]\nsteps = 7\n", {{"run.steps", "9"},
                                                                      {"data.suffixes", ".py,.pyi"},
                                                                      {"data.skip_invalid", "true"},
                                                                      {"optimizer.learning_rate", "1e-3"}});
  EXPECT_EQ(c.run.steps, 9);
  EXPECT_EQ(c.data.suffixes, (std::vector<std::string>{".py", ".pyi"}));
  EXPECT_TRUE(c.data.skip_invalid);
  EXPECT_EQ(c.optimizer.learning_rate, 1e-3);
}

TEST(Config, PrintsItselfAndReadsItBack) {
  Config c =
      parse(kLeast, {{"optimizer.learning_rate", "0.1"}, {"data.exclude", "a\"b,c"}, {"optimizer.clip_norm", "1e14"}});
  const Config again = parse(to_toml(c));
  EXPECT_EQ(to_toml(again), to_toml(c));
  EXPECT_EQ(again.data.exclude, c.data.exclude);
}

TEST(Config, HelpListsEveryKeyWithItsDefault) {
  Config c;
  const std::string text = describe_keys();
  for (const Key& key : bind_keys(c))
    EXPECT_THAT(text, AllOf(HasSubstr("--" + key.name + " "), HasSubstr(key.meaning)));
}

struct Bad {
  const char* text;
  const char* message;
};
class BadConfig : public ::testing::TestWithParam<Bad> {};

TEST_P(BadConfig, IsRefusedWithAReason) {
  EXPECT_THAT(error_of([&] { parse(GetParam().text); }), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadConfig,
    ::testing::Values(Bad{"[data]\npth = 'x'\n", "run.toml:2: there is no key data.pth; did you mean 'data.path'?"},
                      Bad{"[optimiser]\nlearning_rate = 1\n", "did you mean 'optimizer.learning_rate'?"},
                      Bad{"[model]\nbatch_tokens = 1\n", "did you mean 'data.batch_tokens'?"},
                      Bad{"steps = 3\n", "there is no key steps; did you mean 'run.steps'?"},
                      Bad{"[zzz]\nqqqqqqqqq = 3\n", "--help lists all of them"},
                      Bad{"[run]\nsteps = 'many'\n", "run.steps must be a value of type integer, it is 'many'"},
                      Bad{"[run]\nsteps = 1.5\n", "run.steps must be a value of type integer"},
                      Bad{"[data]\nsuffixes = '.py'\n", "data.suffixes must be a value of type list"},
                      Bad{"[data]\nskip_invalid = 1\n", "data.skip_invalid must be a value of type true|false"},
                      Bad{"[optimizer]\nbeta1 = 1.0\n", "optimizer.beta1 must be from 0 to"},
                      Bad{"[run]\nsteps = -1\n", "run.steps must be from 1"},
                      Bad{"[model]\ndtype = 'float23'\n", "did you mean 'float32'?"}, Bad{"[data\n", "not TOML"},
                      Bad{"[data]\npath = 'x'\n", "model.config is required"},
                      Bad{"[data]\npath = 'x'\nbatch_tokens = 10\n[model]\nconfig = 'c'\n",
                          "max_document_tokens must be at most data.batch_tokens, they are 8192 and 10"},
                      Bad{"[data]\npath = 'x'\n[model]\nconfig = 'c'\n[run]\ncheckpoint_interval = 1\n",
                          "checkpoints need run.folder"},
                      Bad{"[data]\npath = 'x'\n[model]\nconfig = 'c'\n[run]\neval_interval = 1\n",
                          "held_out_fraction above 0"}));

TEST(Config, BadOverridesNameTheCommandLine) {
  EXPECT_THAT(error_of([] {
                parse(kLeast, {{"run.step", "1"}});
              }),
              HasSubstr("command line: there is no key run.step; did you mean 'run.steps'?"));
  EXPECT_THAT(error_of([] {
                parse(kLeast, {{"run.steps", "1x"}});
              }),
              HasSubstr("must be a value of type integer, it is \"1x\""));
}

// A small config.json; the fields of `more` are added, or take the place of its own.
std::string model_text(const std::string& more) {
  auto json =
      nlohmann::json::parse(R"({"model_type": "llama", "vocab_size": 9, "hidden_size": 8, "intermediate_size": 8,
                                        "num_hidden_layers": 1, "num_attention_heads": 2})");
  json.update(nlohmann::json::parse("{" + more + "}"));
  return json.dump();
}

TEST(ModelConfig, SurvivesBeingWritten) {
  nn::ModelConfig c = nn::parse_model_config(
      model_text(R"("rope_theta": 500000.0, "attention_bias": true, "mlp_bias": true)"), "config.json");
  EXPECT_TRUE(nn::differences(nn::parse_model_config(nn::to_json(c, "float32"), "again"), c).empty());
  for (const char* type : {"mistral", "qwen2", "qwen3"}) {
    c = nn::parse_model_config(model_text(join_text(R"("model_type": ")", type, "\", \"head_dim\": 4")), type);
    EXPECT_TRUE(nn::differences(nn::parse_model_config(nn::to_json(c, "float32"), "again"), c).empty()) << type;
  }
}

TEST(ModelConfig, RefusesWhatItCannotCompute) {
  const auto refusal = [](const std::string& more) {
    return error_of([&] { nn::parse_model_config(model_text(more), "config.json"); });
  };
  EXPECT_EQ(refusal(""), "");
  EXPECT_THAT(refusal(R"("rope_scaling": {"rope_type": "llama3", "factor": 8.0})"), HasSubstr("only default rotary"));
  EXPECT_THAT(refusal(R"("rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4})"),
              HasSubstr("only default rotary"));
  EXPECT_THAT(refusal(R"("partial_rotary_factor": 0.5)"), HasSubstr("partial rotary"));
  EXPECT_THAT(refusal(R"("hidden_act": "relu")"),
              HasSubstr("only the activation silu is supported; hidden_act is \"relu\""));
  EXPECT_THAT(refusal(R"("attention_dropout": 0.1)"), HasSubstr("dropout is not supported"));
  EXPECT_THAT(refusal(R"("use_sliding_window": true, "sliding_window": 8)"), HasSubstr("sliding windows"));
  EXPECT_THAT(refusal(R"("model_type": "mistral", "sliding_window": 4096)"), HasSubstr("sliding windows"));
  EXPECT_THAT(refusal(R"("layer_types": ["full_attention", "sliding_attention"])"), HasSubstr("full_attention"));
  EXPECT_THAT(refusal(R"("model_type": "gpt2")"), HasSubstr("llama, mistral, qwen2 and qwen3"));
  EXPECT_THAT(refusal(R"("num_key_value_heads": 3)"), HasSubstr("must divide num_attention_heads, they are 3 and 2"));
  EXPECT_THAT(refusal(R"("vocab_size": "many")"),
              HasSubstr("vocab_size must be a positive integer of at most 2147483648, it is \"many\""));
  EXPECT_THAT(error_of([] { nn::parse_model_config("{", "config.json"); }),
              HasSubstr("config.json is no JSON from line 1, column 2 on"));
}

}  // namespace
}  // namespace evenspan::train
