#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <torch/csrc/autograd/autograd.h>

#include <fstream>

#include "evenspan/nn/decoder.h"
#include "evenspan/nn/loss.h"
#include "evenspan/nn/safetensors.h"
#include "train/scratch.h"

namespace evenspan::nn {
namespace {

using evenspan::testing::error_of;
using evenspan::testing::Scratch;
using ::testing::HasSubstr;

// The fields of `more` are added, or take the place of the model's own.
ModelConfig small(const std::string& more = "") {
  auto json = nlohmann::json::parse(R"({"model_type": "llama", "vocab_size": 23, "hidden_size": 12,
                                        "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 3,
                                        "head_dim": 4, "initializer_range": 0.5})");
  json.update(nlohmann::json::parse("{" + more + "}"));
  return parse_model_config(json.dump(), "config.json");
}

Mixers attention_only(Attention attention) { return {std::move(attention), {}, {}}; }

std::string with_header(const std::string& json, const std::string& data) {
  const uint64_t n = json.size();
  return std::string(reinterpret_cast<const char*>(&n), 8) + json + data;
}

TEST(Safetensors, RoundTripsTypesAndShapes) {
  const Scratch s;
  const NamedTensors tensors = {{"a", at::randn({3, 5})},
                                {"b", at::arange(7, at::kLong)},
                                {"c", at::randn({2, 2}).to(at::kBFloat16).t()},  // not contiguous
                                {"d", at::empty({0, 4}, at::kDouble)},
                                {"e", at::ones({}, at::kDouble)}};
  write_safetensors(s.path("t"), tensors, {{"format", "pt"}});
  const SafetensorsFile file(s.path("t"));
  EXPECT_EQ(file.names().size(), tensors.size());
  EXPECT_EQ(file.metadata().at("format"), "pt");
  for (const auto& [name, tensor] : tensors) {
    EXPECT_EQ(file.tensor(name).scalar_type(), tensor.scalar_type());
    EXPECT_TRUE(at::equal(file.tensor(name), tensor)) << name;
  }
  EXPECT_THAT(error_of([&] { file.tensor("z"); }), HasSubstr("has no tensor z"));
}

TEST(Safetensors, BadFilesAreRefused) {
  const Scratch s;
  const auto refusal = [&](const std::string& bytes) {
    return error_of([&] { SafetensorsFile{s.write("t", bytes)}; });
  };
  const std::string data(8, 'x');
  EXPECT_EQ(refusal(with_header(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", data)), "");
  EXPECT_THAT(refusal("abc"), HasSubstr("it has 3 bytes"));
  EXPECT_THAT(refusal(std::string(8, '\xff')), HasSubstr("its header claims"));
  EXPECT_THAT(refusal(with_header("{", data)), HasSubstr("is no JSON from line 1"));
  EXPECT_THAT(refusal(with_header(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}})", data)),
              HasSubstr("lies at bytes [0, 12) of 8"));
  EXPECT_THAT(refusal(with_header(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", data)),
              HasSubstr("has 8 bytes"));
  EXPECT_THAT(
      refusal(with_header(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}})", data)),
      HasSubstr("has 8 bytes"));
  EXPECT_THAT(refusal(with_header(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", data)),
              HasSubstr("the extent -2"));
  EXPECT_THAT(refusal(with_header(R"({"a":{"dtype":"Q4","shape":[2],"data_offsets":[0,8]}})", data)),
              HasSubstr("unknown type Q4"));
  EXPECT_THAT(refusal(with_header(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", data)),
              HasSubstr("leave or share bytes"));
  EXPECT_THAT(refusal(with_header(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", data)),
              HasSubstr("end at byte 4 of 8"));
  EXPECT_THAT(refusal(with_header(R"({"a":{"shape":[2],"data_offsets":[0,8]}})", data)),
              HasSubstr("the field a.dtype is missing"));
  EXPECT_THAT(error_of([&] { SafetensorsFile{s.path("none")}; }), HasSubstr("cannot be opened"));
}

TEST(Safetensors, FilesThatShrinkAreNamed) {
  const Scratch s;
  write_safetensors(s.path("t"), {{"a", at::ones({3})}, {"b", at::ones({5})}}, {});
  const auto num_bytes = std::filesystem::file_size(s.path("t"));
  const SafetensorsFile open(s.path("t"));
  for (auto left = num_bytes; left-- > 0;) {
    std::filesystem::resize_file(s.path("t"), left);
    EXPECT_THAT(error_of([&] { SafetensorsFile{s.path("t")}; }), HasSubstr(s.path("t") + " is malformed or truncated"));
    for (const char* name : {"a", "b"}) {
      EXPECT_THAT(error_of([&] { open.tensor(name); }),
                  HasSubstr(join_text(s.path("t"), " had ", num_bytes, " bytes when it was opened first and has ", left,
                                      " now; files must not change while a run reads them")));
    }
  }
}

NamedTensors items(const Parameters& p) { return p.items(); }

TEST(ModelFiles, OneFileOrShards) {
  const ModelConfig config = small();
  const Parameters parameters = make_initial_parameters(config, 3, at::kFloat);
  for (const int64_t shard_bytes : {kDefaultShardBytes, int64_t{2000}}) {
    const Scratch s;
    save_model(s.path(), config, items(parameters), shard_bytes);
    EXPECT_EQ(std::filesystem::exists(s.path("model.safetensors.index.json")), shard_bytes == 2000);
    const ModelConfig read = load_model_config(s.path());
    EXPECT_TRUE(differences(read, config).empty());
    const Parameters again = load_weights(s.path(), read, at::kFloat);
    for (const auto& [name, tensor] : parameters.items()) EXPECT_TRUE(at::equal(again.at(name), tensor)) << name;
  }
}

TEST(ModelFiles, OtherModelsAreRefused) {
  const Scratch s;
  EXPECT_THAT(error_of([&] { load_weights(s.path(), small(), at::kFloat); }), HasSubstr("holds neither"));
  save_model(s.path(), small(), items(make_initial_parameters(small(), 3, at::kFloat)));
  EXPECT_THAT(error_of([&] { load_weights(s.path(), small(R"("hidden_size": 16)"), at::kFloat); }),
              HasSubstr("must be [23, 16], it is [23, 12]"));
  EXPECT_THAT(error_of([&] { load_weights(s.path(), small(R"("num_hidden_layers": 3)"), at::kFloat); }),
              HasSubstr("has no tensor model.layers.2"));
  EXPECT_THAT(error_of([&] { load_weights(s.path(), small(R"("num_hidden_layers": 1)"), at::kFloat); }),
              HasSubstr("does not have"));
}

TEST(InitialValues, DependOnSeedNameAndIndexOnly) {
  const ModelConfig config = small();
  const ParameterSpec spec{"model.embed_tokens.weight", {40, 50}, Initial::normal};
  std::vector<double> whole(2000), part(701);
  initial_values(config, spec, 5, 0, 2000, whole.data());
  initial_values(config, spec, 5, 301, 1002, part.data());
  EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + 301));
  double sum = 0, square = 0;
  for (const double x : whole) {
    sum += x;
    square += x * x;
  }
  EXPECT_NEAR(sum / 2000, 0, 0.05);
  EXPECT_NEAR(std::sqrt(square / 2000), 0.5, 0.03);
  std::vector<double> other(2000);
  initial_values(config, spec, 6, 0, 2000, other.data());
  EXPECT_NE(other, whole);
  initial_values(config, {"lm_head.weight", {40, 50}, Initial::normal}, 5, 0, 2000, other.data());
  EXPECT_NE(other, whole);
}

TEST(InitialValues, OfGatesAreThoseOfMamba) {
  std::vector<double> decays(2000), biases(2000);
  initial_values(small(), {"A_log", {2000}, Initial::log_decay}, 5, 0, 2000, decays.data());
  initial_values(small(), {"dt_bias", {2000}, Initial::time_step}, 5, 0, 2000, biases.data());
  double decay_sum = 0, log_step_sum = 0;
  for (size_t i = 0; i < 2000; ++i) {
    const double decay = std::exp(decays[i]), step = std::log1p(std::exp(biases[i]));
    EXPECT_TRUE(decay >= 1 && decay <= 16 * (1 + 1e-12)) << decay;
    EXPECT_TRUE(step >= 1e-3 * (1 - 1e-9) && step <= 0.1 * (1 + 1e-9)) << step;
    decay_sum += decay;
    log_step_sum += std::log10(step);
  }
  EXPECT_NEAR(decay_sum / 2000, 8.5, 0.3);
  EXPECT_NEAR(log_step_sum / 2000, -2, 0.05);
}

// A rank that holds no tokens takes part: attention is called, and its gradient as well.
TEST(Decoder, RunsWithoutTokens) {
  const Parameters parameters = make_initial_parameters(small(R"("tie_word_embeddings": true)"), 3, at::kFloat);
  require_gradients(parameters);
  const Decoder decoder(small(R"("tie_word_embeddings": true)"), parameters);
  int calls = 0;
  const at::Tensor none = at::empty({0}, at::kLong);
  const at::Tensor hidden =
      decoder.forward(none, none, attention_only([&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
                        EXPECT_EQ(q.sizes(), (std::vector<int64_t>{0, 3, 4}));
                        ++calls;
                        at::Tensor out = q + k + v;
                        out.register_hook([&](const at::Tensor&) { ++calls; });
                        return out;
                      }));
  const at::Tensor loss = tiled_cross_entropy(hidden, decoder.head_weight(), none, 0.25);
  EXPECT_EQ(loss.item<double>(), 0);
  torch::autograd::backward({loss}, {});
  EXPECT_EQ(calls, 4);  // two layers, forward and backward
  for (const auto& [name, tensor] : parameters.items()) {
    ASSERT_TRUE(tensor.grad().defined()) << name;
    EXPECT_EQ(tensor.grad().abs().sum().item<double>(), 0) << name;
  }
}

// 4,096 rows of three tokens: sums of 16 bits lose most of what they should have.
TEST(Decoder, SumsTheGradientOfItsEmbeddingInTheAccumulationType) {
  const at::Tensor ids = at::arange(4096, at::kLong).remainder(3);
  const auto gradient = [&](at::ScalarType type) {
    const Parameters parameters = make_initial_parameters(small(), 3, type);
    require_gradients(parameters);
    const Decoder decoder(small(), parameters);
    const at::Tensor hidden = decoder.forward(
        ids, ids, attention_only([](const at::Tensor& q, const at::Tensor&, const at::Tensor&) { return q; }));
    torch::autograd::backward({hidden.to(at::kDouble).narrow(1, 0, 5).sum()}, {});
    return parameters.at("model.embed_tokens.weight").grad().to(at::kDouble);
  };
  const at::Tensor exact = gradient(at::kDouble);
  EXPECT_EQ(exact.narrow(0, 3, 20).abs().max().item<double>(), 0);
  // A row's own gradient has a few roundings of 2^-9 for each of two layers, alike in all rows of a token.
  EXPECT_LE((gradient(at::kBFloat16) - exact).norm().item<double>(), 0.05 * exact.norm().item<double>());
}

TEST(Decoder, WrongInputIsRefused) {
  const Decoder decoder(small(), make_initial_parameters(small(), 3, at::kFloat));
  const Mixers attention = attention_only([](const at::Tensor& q, const at::Tensor&, const at::Tensor&) { return q; });
  EXPECT_THAT(error_of([&] { decoder.forward(at::zeros({3}, at::kLong), at::zeros({2}, at::kLong), attention); }),
              HasSubstr("of one length"));
  EXPECT_THAT(error_of([&] { decoder.forward(at::zeros({3}), at::zeros({3}), attention); }),
              HasSubstr("must be int64"));
  EXPECT_THAT(error_of([] { Decoder(small(), Parameters()); }), HasSubstr("there is no parameter"));
}

class TiledLoss : public ::testing::TestWithParam<std::pair<int64_t, int64_t>> {};

TEST_P(TiledLoss, EqualsThePlainOne) {
  const auto [rows, vocabulary] = GetParam();
  at::manual_seed(1);
  const at::Tensor hidden = at::randn({rows, 8}, at::kDouble).requires_grad_(true);
  const at::Tensor weight = at::randn({vocabulary, 8}, at::kDouble).requires_grad_(true);
  at::Tensor labels = at::randint(vocabulary, {rows}, at::kLong);
  labels.narrow(0, 0, rows / 3).fill_(kNoLabel);
  const at::Tensor expected = at::cross_entropy_loss(hidden.matmul(weight.t()), labels, {}, at::Reduction::Sum) * 0.37;
  torch::autograd::backward({expected}, {});
  const at::Tensor grad_hidden = hidden.grad().clone(), grad_weight = weight.grad().clone();
  hidden.mutable_grad() = at::Tensor();
  weight.mutable_grad() = at::Tensor();
  const at::Tensor loss = tiled_cross_entropy(hidden, weight, labels, 0.37 / 2);
  torch::autograd::backward({loss * 2}, {});
  EXPECT_NEAR(2 * loss.item<double>(), expected.item<double>(), 1e-9 * std::abs(expected.item<double>()));
  EXPECT_TRUE(at::allclose(hidden.grad(), grad_hidden, 1e-10, 1e-12));
  EXPECT_TRUE(at::allclose(weight.grad(), grad_weight, 1e-10, 1e-12));
  EXPECT_NEAR(2 * tiled_cross_entropy(hidden.detach(), weight.detach(), labels, 0.37 / 2).item<double>(),
              expected.item<double>(), 1e-9 * std::abs(expected.item<double>()));
}

// One tile, several tiles with a last short one, tiles of the least size.
INSTANTIATE_TEST_SUITE_P(Sizes, TiledLoss,
                         ::testing::Values(std::pair{10, 7}, std::pair{1000, 5000}, std::pair{37, 200000}));

TEST(TiledLoss, WrongInputIsRefused) {
  const at::Tensor x = at::randn({3, 4}), w = at::randn({5, 4});
  const auto refusal = [&](const at::Tensor& labels) {
    return error_of([&] { tiled_cross_entropy(x, w, labels, 1); });
  };
  EXPECT_THAT(refusal(at::full({3}, 5, at::kLong)), HasSubstr("in [0, 5), one of them is 5"));
  EXPECT_THAT(refusal(at::full({3}, -1, at::kLong)), HasSubstr("one of them is -1"));
  EXPECT_THAT(refusal(at::zeros({2}, at::kLong)), HasSubstr("int64 labels [n] are needed"));
  EXPECT_EQ(tiled_cross_entropy(x, w, at::full({3}, kNoLabel, at::kLong), 1).item<double>(), 0);
}

}  // namespace
}  // namespace evenspan::nn
