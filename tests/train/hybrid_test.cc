// Hybrids of softmax and linear layers: their configurations, their layers on ranks against whole documents computed
// token by token, and whole training runs.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <torch/csrc/autograd/autograd.h>

#include <atomic>
#include <filesystem>

#include "evenspan/nn/decoder.h"
#include "evenspan/nn/loss.h"
#include "evenspan/plan/linear.h"
#include "evenspan/simulate/profile.h"
#include "evenspan/train/report.h"
#include "evenspan/train/trainer.h"
#include "support/torch/naive_recurrence.h"
#include "train/model_work.h"
#include "train/small_run.h"

namespace evenspan {
namespace {

using evenspan::testing::error_of;
using evenspan::testing::Scratch;
using evenspan::testing::write_texts;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The fields of `more` are added, or take the place of the model's own.
std::string hybrid_json(const std::string& layer_types, const std::string& more = "", int64_t layers = 2) {
  auto json = nlohmann::json::parse(
      R"({"model_type": "evenspan_hybrid", "vocab_size": 257, "hidden_size": 24, "intermediate_size": 40,
             "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 64,
             "initializer_range": 0.3, "tie_word_embeddings": true, "linear_num_heads": 3, "linear_key_dim": 4,
             "linear_value_dim": 6, "num_hidden_layers": )" +
      std::to_string(layers) + R"(, "layer_types": )" + layer_types + "}");
  json.update(nlohmann::json::parse("{" + more + "}"));
  return json.dump();
}

nn::ModelConfig hybrid(const std::string& layer_types, const std::string& more = "") {
  return nn::parse_model_config(hybrid_json(layer_types, more), "config.json");
}

TEST(HybridConfig, RoundTrips) {
  const nn::ModelConfig config = hybrid(R"(["gla", "full_attention"])", R"("linear_conv_kernel": 4)");
  EXPECT_EQ(config.num_softmax_layers(), 1);
  EXPECT_EQ(nn::parse_model_config(nn::to_json(config, "float32"), "again"), config);
  nn::ModelConfig other = config;
  other.layer_types[0] = "kda";
  EXPECT_THAT(nn::differences(config, other), ElementsAre("layer_types[0]: gla against kda"));
}

TEST(HybridConfig, BadLayersAreRefused) {
  EXPECT_THAT(error_of([] { hybrid(R"(["gated_delta_net", "gla"])"); }), HasSubstr("did you mean 'gated_deltanet'"));
  EXPECT_THAT(error_of([] { hybrid(R"(["gla"])"); }), HasSubstr("layer_types has 1 names for 2 layers"));
  EXPECT_THAT(error_of([] { hybrid(R"(["gla", 3])"); }), HasSubstr("layer_types has 3; there are full_attention"));
  EXPECT_THAT(error_of([] { hybrid(R"(["gla", "gla"])", R"("linear_key_dim": 0)"); }),
              HasSubstr("linear_key_dim must be a positive integer"));
  EXPECT_THAT(error_of([] { hybrid(R"(["gla", "gla"])", R"("linear_conv_kernel": 2.5)"); }),
              HasSubstr("linear_conv_kernel must be a positive integer of at most 2147483648, it is 2.5"));
}

at::Tensor naive_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const int64_t group = q.size(1) / k.size(1);
  const auto heads = [](const at::Tensor& x) { return x.transpose(0, 1); };
  const at::Tensor scores = at::matmul(heads(q), heads(k.repeat_interleave(group, 1)).transpose(1, 2)) /
                            std::sqrt(static_cast<double>(q.size(2)));
  const at::Tensor mask = at::ones({q.size(0), q.size(0)}, at::kBool).tril();
  const at::Tensor weights = at::softmax(scores.masked_fill(mask.logical_not(), -INFINITY), -1);
  return at::matmul(weights, heads(v.repeat_interleave(group, 1))).transpose(0, 1);
}

// One document, token by token.
nn::Mixers naive_mixers() {
  nn::Mixers mixers;
  mixers.attention = naive_attention;
  mixers.linear_attention = [](const run::LinearInput& x, const run::LinearOptions& options) {
    at::Tensor value = x.value;
    if (options.normalize) value = at::cat({value, at::ones({value.size(0), value.size(1), 1}, value.options())}, -1);
    const double scale = 1 / std::sqrt(static_cast<double>(x.query.size(2)));
    const at::Tensor out = test::naive_recurrence(x.query, x.key, value, x.gate, x.beta, scale, {}).first;
    if (!options.normalize) return out;
    const int64_t width = out.size(2) - 1;
    return out.narrow(2, 0, width) / out.narrow(2, width, 1);
  };
  mixers.convolution = [](const at::Tensor& x, const at::Tensor& weight) {
    const int64_t width = weight.size(1);
    const at::Tensor padded = at::cat({at::zeros({width - 1, x.size(1)}, x.options()), x});
    at::Tensor y = padded.narrow(0, 0, x.size(0)) * weight.select(1, 0);
    for (int64_t i = 1; i < width; ++i) y = y + padded.narrow(0, i, x.size(0)) * weight.select(1, i);
    return y;
  };
  return mixers;
}

class HybridDecoder : public ::testing::TestWithParam<std::tuple<std::string, int>> {};

TEST_P(HybridDecoder, RanksComputeWhatDocumentsAloneGive) {
  const auto& [kind, width] = GetParam();
  const nn::ModelConfig config =
      hybrid("[\"" + kind + R"(", "full_attention"])", R"("linear_conv_kernel": )" + std::to_string(width));
  const std::vector<int64_t> lengths{29, 1, 3, 12};
  at::manual_seed(5);
  const at::Tensor ids = at::randint(0, 257, {45}, at::kLong), labels = at::randint(0, 257, {45}, at::kLong);

  nn::Parameters whole = nn::make_initial_parameters(config, 3, at::kDouble);
  nn::require_gradients(whole);
  const nn::Decoder reference(config, whole);
  std::vector<at::Tensor> hidden;
  int64_t row = 0;
  for (const int64_t length : lengths) {
    hidden.push_back(reference.forward(ids.narrow(0, row, length), at::arange(length, at::kLong), naive_mixers()));
    row += length;
  }
  const at::Tensor expected = at::cat(hidden);
  torch::autograd::backward({nn::tiled_cross_entropy(expected, reference.head_weight(), labels, 1.0 / 45)}, {});

  plan::Request request;
  request.documents = plan::Documents(lengths, plan::Mask{});
  request.shape = plan::AttentionShape{4, 2, 4, plan::ElementType::f64};
  request.topology = plan::make_topology(3);
  request.options.strategy = "zigzag";
  const auto plan = plan::make_plan(std::move(request));
  std::vector<nn::Parameters> own(3);
  comm::run_threads(3, [&](const comm::Communicator& communicator) {
    at::set_num_threads(1);
    const auto rank = static_cast<size_t>(communicator.rank().value);
    own[rank] = nn::make_initial_parameters(config, 3, at::kDouble);
    nn::require_gradients(own[rank]);
    const nn::Decoder decoder(config, own[rank]);
    const run::Executable executable(plan, communicator);
    std::vector<int64_t> rows, positions, starts{0};
    for (const int64_t length : lengths) starts.push_back(starts.back() + length);
    for (const plan::PlacedSpan& placed : plan->placement.spans(communicator.rank())) {
      for (int64_t i = placed.span.begin; i < placed.span.end; ++i) {
        rows.push_back(starts[static_cast<size_t>(placed.document.value)] + i);
        positions.push_back(i);
      }
    }
    const at::Tensor index = at::tensor(rows, at::kLong);
    const at::Tensor got =
        decoder.forward(ids.index_select(0, index), at::tensor(positions, at::kLong), executable, "pipelined");
    EXPECT_LT((got - expected.index_select(0, index)).abs().max().item<double>(), 1e-9);
    torch::autograd::backward(
        {nn::tiled_cross_entropy(got, decoder.head_weight(), labels.index_select(0, index), 1.0 / 45)}, {});
  });
  for (const auto& [name, tensor] : whole.items()) {
    at::Tensor sum = at::zeros_like(tensor);
    for (const nn::Parameters& parameters : own) sum += parameters.at(name).grad();
    EXPECT_GT(tensor.grad().abs().max().item<double>(), 0) << name;
    EXPECT_LT((sum - tensor.grad()).abs().max().item<double>(), 1e-9) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, HybridDecoder,
                         ::testing::Combine(::testing::ValuesIn(nn::linear_layer_types()), ::testing::Values(0, 4)));

train::Config hybrid_config(const Scratch& s, const std::string& run) {
  const std::string model =
      hybrid_json(R"(["gated_deltanet", "gla", "full_attention", "lightning"])", R"("linear_conv_kernel": 4)", 4);
  train::Config config = testing::small_run(s, model, run);
  config.optimizer.learning_rate = 3e-3;
  config.run.steps = 50;
  return config;
}

void run_hybrid(const train::Config& config, int32_t ranks) {
  comm::run_threads(ranks, [&](const comm::Communicator& communicator) { train::train(config, communicator); });
}

// 50 steps in float64: final weights within 1e-8 (rule in docs/numerics.md).
TEST(HybridTraining, FourRanksTrainWhatOneTrains) {
  const Scratch s;
  write_texts(s, testing::kSizes);
  run_hybrid(hybrid_config(s, "one"), 1);
  for (const char* strategy : {"sequence_aware", "zigzag"}) {
    train::Config config = hybrid_config(s, strategy);
    config.parallel.strategy = strategy;
    if (strategy == std::string("sequence_aware")) config.parallel.micro_batch_tokens = 64;
    config.parallel.transport = strategy == std::string("zigzag") ? "two_level" : "all_gather";
    config.parallel.ranks_per_node = 2;
    run_hybrid(config, 4);
    const train::Comparison comparison = train::compare_runs(s.path(strategy), s.path("one"), {});
    EXPECT_TRUE(comparison.equal) << train::comparison_table(comparison);
  }
}

TEST(HybridTraining, GoesOnFromACheckpoint) {
  for (const char* dtype : {"float64", "bfloat16"}) {
    const Scratch s;
    write_texts(s, testing::kSizes);
    train::Config config = hybrid_config(s, "straight");
    config.model.dtype = dtype;
    config.run.steps = config.optimizer.decay_steps = 6;
    run_hybrid(config, 2);
    config.run.folder = s.path("broken");
    config.run.steps = 3;
    run_hybrid(config, 2);
    config.run.steps = 6;
    config.run.resume = "latest";
    run_hybrid(config, 2);
    const auto checkpoint = [&](const char* run) { return train::read_run(s.path(run)).checkpoint; };
    EXPECT_EQ(train::weight_distance(checkpoint("broken"), checkpoint("straight")), 0) << dtype;
  }
}

// What leaves the ranks in forward beside what the report says; cut into equal chunks, as much as it says of `ring`.
TEST(HybridTraining, ReportsTheBytesOfForward) {
  const nn::ModelConfig linear = hybrid(R"(["gated_deltanet", "lightning"])", R"("linear_conv_kernel": 4)");
  const nn::ModelConfig mixed = hybrid(R"(["full_attention", "kda"])", R"("linear_conv_kernel": 3)");
  for (const std::string strategy : {"sequence_aware", "zigzag", "ring"}) {
    for (const auto& transport : plan::transports()) {
      for (const nn::ModelConfig& model : {linear, mixed}) {
        plan::Request request;
        request.documents = plan::Documents({29, 1, 2, 3, 12, 40}, plan::Mask{});
        request.shape = plan::AttentionShape{4, 2, 4, plan::ElementType::f64};
        request.topology = plan::make_topology(4, 2);
        request.cost = simulate::cost_model(train::simulated_model(model, plan::ElementType::f64));
        request.options.strategy = strategy;
        const auto plan = plan::make_plan(std::move(request));
        std::atomic<int64_t> sent = 0;
        comm::run_threads(4, [&](const comm::Communicator& inner) {
          at::set_num_threads(1);
          const c10::AutoGradMode no_gradients(false);
          const auto recorded = std::make_shared<comm::Recorded>();
          const run::Executable executable(plan, comm::make_recording_communicator(inner, recorded));
          const at::Tensor ids = at::zeros({executable.num_tokens()}, at::kLong);
          const nn::Decoder decoder(model, nn::make_initial_parameters(model, 3, at::kDouble));
          decoder.forward(ids, ids, executable, std::string(transport.name));
          for (const comm::Recorded::Item& item : recorded->sends) {
            if (item.operation.find("forward") != std::string::npos) sent += item.num_bytes;
          }
        });
        const train::ForwardBytes bytes =
            train::forward_bytes(model, *plan, plan::measure(*plan), std::string(transport.name));
        EXPECT_EQ(sent, bytes.planned) << strategy << " " << transport.name;
        if (strategy == "ring" && transport.name == "ring" && model.num_softmax_layers() == 0) {
          EXPECT_EQ(sent, bytes.by_ring);
        }
      }
    }
  }
}

TEST(HybridTraining, TheExampleIsValid) {
  const auto folder = std::filesystem::path(EVENSPAN_SOURCE_DIR) / "examples/hybrid";
  const train::Config config = train::load_config((folder / "hybrid.toml").string(), {});
  EXPECT_EQ(nn::load_model_config(config.model.config).num_softmax_layers(), 1);
}

TEST(HybridTraining, AnUnknownTransportIsRefused) {
  const Scratch s;
  write_texts(s, testing::kSizes);
  train::Config config = hybrid_config(s, "run");
  config.parallel.transport = "allgather";
  EXPECT_THAT(error_of([&] { run_hybrid(config, 1); }), HasSubstr("did you mean 'all_gather'"));
}

TEST(HybridTraining, ATransportWithoutLinearLayersIsRefused) {
  const Scratch s;
  write_texts(s, testing::kSizes);
  train::Config config = hybrid_config(s, "run");
  s.write("config.json", hybrid_json(R"(["full_attention", "full_attention"])"));
  config.parallel.transport = "ring";
  EXPECT_THAT(error_of([&] { run_hybrid(config, 1); }), HasSubstr("no effect on a model without linear layers"));
}

}  // namespace
}  // namespace evenspan
