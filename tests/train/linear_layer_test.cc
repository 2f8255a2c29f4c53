// A linear layer beside its formulas, written out number by number.
#include "nn/linear_layer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

namespace evenspan::nn {
namespace {

using Rows = std::vector<std::vector<double>>;  // [token][channel]

double silu(double x) { return x / (1 + std::exp(-x)); }
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double softplus(double x) { return std::log1p(std::exp(x)); }

Rows rows_of(const at::Tensor& x) {
  Rows rows;
  for (int64_t t = 0; t < x.size(0); ++t) {
    const at::Tensor row = x[t].contiguous();
    rows.emplace_back(row.const_data_ptr<double>(), row.const_data_ptr<double>() + row.numel());
  }
  return rows;
}

template <class Function>
Rows each(Rows rows, Function&& function) {
  for (auto& row : rows) {
    for (double& x : row) x = function(x);
  }
  return rows;
}

// One document through one layer, as the papers write it.
class Formula {
 public:
  Formula(const ModelConfig& config, std::string kind, const Parameters& parameters)
      : config_(config), kind_(std::move(kind)), parameters_(parameters) {}

  Rows operator()(const Rows& x) const {
    const bool delta = kind_ == "deltanet" || kind_ == "gated_deltanet" || kind_ == "kda";
    const bool with_silu = delta || kind_ == "lightning" || kind_ == "mamba2" || config_.linear_conv_kernel > 0;
    Rows q = convolved(product(x, "q_proj.weight"), "q_conv1d.weight");
    Rows k = convolved(product(x, "k_proj.weight"), "k_conv1d.weight");
    Rows v = convolved(product(x, "v_proj.weight"), "v_conv1d.weight");
    for (Rows* rows : {&q, &k, &v}) {
      if (with_silu) *rows = each(*rows, silu);
    }
    const auto feature = [](double z) { return z > 0 ? z + 1 : std::exp(z); };
    for (Rows* rows : {&q, &k}) {
      if (kind_ == "linear") *rows = each(*rows, feature);
    }
    const auto heads = static_cast<size_t>(config_.linear_num_heads);
    const auto keys = static_cast<size_t>(config_.linear_key_dim),
               values = static_cast<size_t>(config_.linear_value_dim);
    if (delta) {
      for (Rows* rows : {&q, &k}) normalize(rows, keys);
    }
    const Rows beta = delta ? each(product(x, "b_proj.weight"), sigmoid) : Rows();
    const Rows decays = log_decays(x), steps = kind_ == "mamba2" ? time_steps(x) : Rows();
    Rows mixed(x.size(), std::vector<double>(heads * values));
    for (size_t h = 0; h < heads; ++h) {
      Rows state(keys, std::vector<double>(values));
      std::vector<double> total(keys);  // of the keys
      for (size_t t = 0; t < x.size(); ++t) {
        const double* key = &k[t][h * keys];
        for (size_t i = 0; i < keys; ++i) {
          for (double& s : state[i]) s *= std::exp(decays[t][h * keys + i]);
          total[i] += key[i];
        }
        for (size_t j = 0; j < values; ++j) {
          double value = v[t][h * values + j], known = 0;
          for (size_t i = 0; i < keys; ++i) known += key[i] * state[i][j];
          if (delta) value = beta[t][h] * (value - known);
          if (kind_ == "mamba2") value *= steps[t][h];
          double out = 0, divisor = 0;
          for (size_t i = 0; i < keys; ++i) {
            state[i][j] += key[i] * value;
            out += q[t][h * keys + i] * state[i][j];
            divisor += q[t][h * keys + i] * total[i];
          }
          out /= kind_ == "linear" ? divisor : std::sqrt(static_cast<double>(keys));
          if (kind_ == "mamba2") out += number("D", h) * v[t][h * values + j];
          mixed[t][h * values + j] = out;
        }
      }
    }
    return product(gated(x, std::move(mixed), values), "o_proj.weight");
  }

 private:
  double number(const char* name, size_t index) const {
    return parameters_.at(name).flatten()[static_cast<int64_t>(index)].item<double>();
  }

  Rows product(const Rows& x, const char* name) const {
    const Rows weight = rows_of(parameters_.at(name));
    Rows y(x.size(), std::vector<double>(weight.size()));
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t o = 0; o < weight.size(); ++o) {
        for (size_t i = 0; i < x[t].size(); ++i) y[t][o] += weight[o][i] * x[t][i];
      }
    }
    return y;
  }

  Rows convolved(const Rows& x, const char* name) const {
    if (config_.linear_conv_kernel == 0) return x;
    const Rows weight = rows_of(parameters_.at(name));
    Rows y(x.size(), std::vector<double>(x[0].size()));
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t c = 0; c < x[t].size(); ++c) {
        const size_t width = weight[c].size();
        for (size_t back = 0; back < width && back <= t; ++back)
          y[t][c] += weight[c][width - 1 - back] * x[t - back][c];
      }
    }
    return y;
  }

  static void normalize(Rows* rows, size_t width) {
    for (auto& row : *rows) {
      for (size_t begin = 0; begin < row.size(); begin += width) {
        double square = 1e-6;
        for (size_t i = begin; i < begin + width; ++i) square += row[i] * row[i];
        for (size_t i = begin; i < begin + width; ++i) row[i] /= std::sqrt(square);
      }
    }
  }

  Rows time_steps(const Rows& x) const {
    Rows steps = product(x, "a_proj.weight");
    for (auto& row : steps) {
      for (size_t h = 0; h < row.size(); ++h) row[h] = softplus(row[h] + number("dt_bias", h));
    }
    return steps;
  }

  // [token][head x key_dim].
  Rows log_decays(const Rows& x) const {
    const auto heads = static_cast<size_t>(config_.linear_num_heads),
               keys = static_cast<size_t>(config_.linear_key_dim);
    Rows low, steps;
    if (kind_ == "gla") low = product(product(x, "gk_proj.0.weight"), "gk_proj.1.weight");
    if (kind_ == "kda") low = product(product(x, "f_proj.0.weight"), "f_proj.1.weight");
    if (kind_ == "mamba2" || kind_ == "gated_deltanet") steps = time_steps(x);
    Rows decays(x.size(), std::vector<double>(heads * keys));
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t c = 0; c < heads * keys; ++c) {
        const size_t h = c / keys;
        double& g = decays[t][c];
        if (kind_ == "lightning") g = -std::exp2(-8.0 * static_cast<double>(h + 1) / static_cast<double>(heads));
        if (!steps.empty()) g = -std::exp(number("A_log", h)) * steps[t][h];
        if (kind_ == "gla") g = std::log(sigmoid(low[t][c] + number("gk_proj.1.bias", c))) / 16;
        if (kind_ == "kda") g = -std::exp(number("A_log", h)) * softplus(low[t][c] + number("dt_bias", c));
      }
    }
    return decays;
  }

  Rows gated(const Rows& x, Rows mixed, size_t values) const {
    for (auto& row : mixed) {
      for (size_t begin = 0; begin < row.size(); begin += values) {
        double square = 0;
        for (size_t j = 0; j < values; ++j) square += row[begin + j] * row[begin + j];
        const double root = std::sqrt(square / static_cast<double>(values) + config_.rms_norm_eps);
        for (size_t j = 0; j < values; ++j) row[begin + j] *= number("o_norm.weight", j) / root;
      }
    }
    if (kind_ == "linear" || kind_ == "deltanet") return mixed;
    const Rows gate = each(product(x, "g_proj.weight"), kind_ == "lightning" || kind_ == "kda" ? sigmoid : silu);
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t c = 0; c < mixed[t].size(); ++c) mixed[t][c] *= gate[t][c];
    }
    return mixed;
  }

  const ModelConfig& config_;
  std::string kind_;
  const Parameters& parameters_;
};

class LinearLayers : public ::testing::TestWithParam<std::tuple<std::string, int>> {};

// The runtime on one rank.
at::Tensor computed(const LinearLayer& layer, const at::Tensor& x) {
  plan::Request request;
  request.documents = plan::Documents({x.size(0)}, plan::Mask{});
  request.shape = plan::AttentionShape{1, 1, 4, plan::ElementType::f64};
  request.topology = plan::make_topology(1);
  const auto plan = plan::make_plan(std::move(request));
  at::Tensor y;
  comm::run_threads(1, [&](const comm::Communicator& communicator) {
    const run::Executable executable(plan, communicator);
    Mixers mixers;
    mixers.linear_attention = [&](const run::LinearInput& input, const run::LinearOptions& options) {
      return run::linear_attention(input, executable, options).output;
    };
    mixers.convolution = [&](const at::Tensor& rows, const at::Tensor& weight) {
      return run::short_convolution(rows, weight, {}, executable);
    };
    y = layer.forward(x, mixers);
  });
  return y;
}

TEST_P(LinearLayers, ComputeTheirFormulas) {
  const auto& [kind, width] = GetParam();
  ModelConfig config;
  config.hidden_size = 10;
  config.linear_num_heads = 3;
  config.linear_key_dim = 4;
  config.linear_value_dim = 6;
  config.linear_conv_kernel = width;
  at::manual_seed(7);
  std::vector<ParameterSpec> specs;
  append_linear_specs(config, kind, "layer", &specs);
  Parameters parameters, own;
  for (const ParameterSpec& spec : specs) {
    parameters.add(spec.name, at::randn(spec.shape, at::kDouble) * 0.7);
    own.add(spec.name.substr(6), parameters.at(spec.name));
  }
  const at::Tensor x = at::randn({11, config.hidden_size}, at::kDouble);
  const at::Tensor got = computed(LinearLayer(config, kind, parameters, "layer"), x);
  const Rows expected = Formula(config, kind, own)(rows_of(x));
  for (int64_t t = 0; t < 11; ++t) {
    const at::Tensor row = at::tensor(expected[static_cast<size_t>(t)], at::kDouble);
    EXPECT_LT((got[t] - row).abs().max().item<double>(), 1e-10) << "token " << t;
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, LinearLayers,
                         ::testing::Combine(::testing::ValuesIn(linear_layer_types()), ::testing::Values(0, 4)));

}  // namespace
}  // namespace evenspan::nn
