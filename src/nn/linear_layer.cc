#include "nn/linear_layer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/elu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/log_sigmoid.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softplus.h>

#include "evenspan/core/error.h"

namespace evenspan::nn {
namespace {

constexpr int64_t kLowRank = 16;         // of GLA's and KDA's gates
constexpr double kGateNormalizer = 16;   // GLA: gates are logsigmoid / 16
constexpr double kLengthEpsilon = 1e-6;  // of queries and keys of length 1

at::Tensor wide(const at::Tensor& x) { return x.to(accumulation_type(x.scalar_type())); }

at::Tensor of_length_1(const at::Tensor& x) {
  const at::Tensor w = wide(x);
  return (w * at::rsqrt(w.square().sum(-1, /*keepdim=*/true) + kLengthEpsilon)).to(x.scalar_type());
}

}  // namespace

LinearKind linear_kind(const std::string& layer_type) {
  using Gate = LinearKind::Gate;
  using Output = LinearKind::OutputGate;
  if (layer_type == "linear") return {Gate::none, Output::none, false, false, true, false};
  if (layer_type == "lightning") return {Gate::fixed, Output::sigmoid, false, true, false, false};
  if (layer_type == "mamba2") return {Gate::step, Output::silu, false, true, false, true};
  if (layer_type == "gla") return {Gate::low_rank, Output::silu, false, false, false, false};
  if (layer_type == "deltanet") return {Gate::none, Output::none, true, true, false, false};
  if (layer_type == "gated_deltanet") return {Gate::step, Output::silu, true, true, false, false};
  EVENSPAN_CHECK_EQ(layer_type, "kda");
  return {Gate::diagonal, Output::sigmoid, true, true, false, false};
}

void append_linear_specs(const ModelConfig& c, const std::string& layer_type, const std::string& prefix,
                         std::vector<ParameterSpec>* specs) {
  const LinearKind kind = linear_kind(layer_type);
  const int64_t heads = c.linear_num_heads, keys = heads * c.linear_key_dim, values = heads * c.linear_value_dim;
  const auto add = [&](const char* name, std::vector<int64_t> shape, Initial initial = Initial::normal) {
    specs->push_back({prefix + "." + name, std::move(shape), initial});
  };
  add("q_proj.weight", {keys, c.hidden_size});
  add("k_proj.weight", {keys, c.hidden_size});
  add("v_proj.weight", {values, c.hidden_size});
  if (c.linear_conv_kernel > 0) {
    add("q_conv1d.weight", {keys, c.linear_conv_kernel}, Initial::convolution);
    add("k_conv1d.weight", {keys, c.linear_conv_kernel}, Initial::convolution);
    add("v_conv1d.weight", {values, c.linear_conv_kernel}, Initial::convolution);
  }
  if (kind.delta) add("b_proj.weight", {heads, c.hidden_size});
  switch (kind.gate) {
    case LinearKind::Gate::none:
    case LinearKind::Gate::fixed:
      break;
    case LinearKind::Gate::step:
      add("a_proj.weight", {heads, c.hidden_size});
      add("A_log", {heads}, Initial::log_decay);
      add("dt_bias", {heads}, Initial::time_step);
      break;
    case LinearKind::Gate::diagonal:
      add("f_proj.0.weight", {kLowRank, c.hidden_size});
      add("f_proj.1.weight", {keys, kLowRank});
      add("A_log", {heads}, Initial::log_decay);
      add("dt_bias", {keys}, Initial::time_step);
      break;
    case LinearKind::Gate::low_rank:
      add("gk_proj.0.weight", {kLowRank, c.hidden_size});
      add("gk_proj.1.weight", {keys, kLowRank});
      add("gk_proj.1.bias", {keys}, Initial::zeros);
      break;
  }
  if (kind.stepped) add("D", {heads}, Initial::ones);
  if (kind.output_gate != LinearKind::OutputGate::none) add("g_proj.weight", {values, c.hidden_size});
  add("o_norm.weight", {c.linear_value_dim}, Initial::ones);
  add("o_proj.weight", {c.hidden_size, values});
}

plan::AttentionShape linear_shape(const ModelConfig& c, const std::string& layer_type, plan::ElementType element) {
  using Gate = LinearKind::Gate;
  const LinearKind kind = linear_kind(layer_type);
  const auto heads = static_cast<int32_t>(c.linear_num_heads);
  plan::AttentionShape shape{heads, heads, static_cast<int32_t>(c.linear_key_dim), element, {}};
  shape.state.value_dim = static_cast<int32_t>(c.linear_value_dim) + (kind.positive ? 1 : 0);  // the divisor
  shape.state.delta_rule = kind.delta;
  shape.state.gate = kind.gate == Gate::none    ? plan::Gate::none
                     : kind.gate == Gate::fixed ? plan::Gate::head
                     : kind.gate == Gate::step  ? plan::Gate::token
                                                : plan::Gate::channel;
  return shape;
}

LinearLayer::LinearLayer(const ModelConfig& c, const std::string& layer_type, const Parameters& parameters,
                         const std::string& prefix)
    : kind_(linear_kind(layer_type)),
      heads_(c.linear_num_heads),
      key_dim_(c.linear_key_dim),
      value_dim_(c.linear_value_dim),
      epsilon_(c.rms_norm_eps) {
  std::vector<ParameterSpec> specs;
  append_linear_specs(c, layer_type, prefix, &specs);
  for (const ParameterSpec& spec : specs) own_.add(spec.name.substr(prefix.size() + 1), parameters.at(spec.name));
  if (kind_.gate == LinearKind::Gate::fixed) {
    // Heads forget at 2^(-8 h / heads) a token, h = 1, 2, ...
    const at::Tensor& like = parameters.at(prefix + ".q_proj.weight");
    const auto options = like.options().dtype(accumulation_type(like.scalar_type())).requires_grad(false);
    fixed_decay_ = -at::pow(2.0, at::arange(1, heads_ + 1, options) * (-8.0 / static_cast<double>(heads_)));
  }
}

at::Tensor LinearLayer::weight(const char* name) const { return own_.contains(name) ? own_.at(name) : at::Tensor(); }

// Logarithms of decays, in the accumulation type; `step` is that of a stepped kind.
at::Tensor LinearLayer::gate(const at::Tensor& x, at::Tensor* step) const {
  const int64_t n = x.size(0);
  switch (kind_.gate) {
    case LinearKind::Gate::none:
      return {};
    case LinearKind::Gate::fixed:
      return fixed_decay_;
    case LinearKind::Gate::step:
      *step = at::softplus(wide(at::linear(x, weight("a_proj.weight"))) + wide(weight("dt_bias")));
      return -wide(weight("A_log")).exp() * *step;
    case LinearKind::Gate::diagonal: {
      const at::Tensor f = at::linear(at::linear(x, weight("f_proj.0.weight")), weight("f_proj.1.weight"));
      const at::Tensor steps = at::softplus(wide(f) + wide(weight("dt_bias"))).view({n, heads_, key_dim_});
      return -wide(weight("A_log")).exp().unsqueeze(-1) * steps;
    }
    case LinearKind::Gate::low_rank: {
      const at::Tensor g =
          at::linear(at::linear(x, weight("gk_proj.0.weight")), weight("gk_proj.1.weight"), weight("gk_proj.1.bias"));
      return at::log_sigmoid(wide(g)).view({n, heads_, key_dim_}) / kGateNormalizer;
    }
  }
  return {};
}

at::Tensor LinearLayer::forward(const at::Tensor& x, const Mixers& mixers) const {
  const int64_t n = x.size(0), keys = heads_ * key_dim_, values = heads_ * value_dim_;
  at::Tensor mixed = at::cat({at::linear(x, weight("q_proj.weight")), at::linear(x, weight("k_proj.weight")),
                              at::linear(x, weight("v_proj.weight"))},
                             -1);
  const bool convolved = weight("q_conv1d.weight").defined();
  if (convolved) {
    mixed = mixers.convolution(
        mixed, at::cat({weight("q_conv1d.weight"), weight("k_conv1d.weight"), weight("v_conv1d.weight")}, 0));
  }
  if (convolved || kind_.activated) mixed = at::silu(mixed);
  at::Tensor query = mixed.narrow(-1, 0, keys).view({n, heads_, key_dim_});
  at::Tensor key = mixed.narrow(-1, keys, keys).view({n, heads_, key_dim_});
  at::Tensor value = mixed.narrow(-1, 2 * keys, values).view({n, heads_, value_dim_});
  if (kind_.delta) {
    query = of_length_1(query);
    key = of_length_1(key);
  }
  if (kind_.positive) {
    query = at::elu(query) + 1.0;
    key = at::elu(key) + 1.0;
  }
  at::Tensor step;
  run::LinearInput input{query, key, value, gate(x, &step), {}, {}};
  if (kind_.delta) input.beta = at::sigmoid(wide(at::linear(x, weight("b_proj.weight"))));
  if (kind_.stepped) input.value = value * step.unsqueeze(-1).to(value.scalar_type());
  run::LinearOptions options;
  options.normalize = kind_.positive;
  at::Tensor output = mixers.linear_attention(input, options);
  if (kind_.stepped) output = output + value * weight("D").unsqueeze(-1);

  const at::Tensor squares = wide(output).square().mean(-1, /*keepdim=*/true);
  output = (wide(output) * at::rsqrt(squares + epsilon_)).to(x.scalar_type()) * weight("o_norm.weight");
  output = output.reshape({n, values});
  if (const at::Tensor g = weight("g_proj.weight"); g.defined()) {
    const at::Tensor opened = at::linear(x, g);
    output = output * (kind_.output_gate == LinearKind::OutputGate::silu ? at::silu(opened) : at::sigmoid(opened));
  }
  return at::linear(output, weight("o_proj.weight"));
}

}  // namespace evenspan::nn
