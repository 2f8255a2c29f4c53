#include "evenspan/nn/parameters.h"

#include <ATen/ops/empty.h>

#include <cmath>
#include <numbers>

#include "evenspan/core/error.h"
#include "nn/linear_layer.h"

namespace evenspan::nn {
namespace {

// splitmix64's finaliser: a bijection of 64-bit numbers without visible structure.
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

uint64_t hash_name(const std::string& name) {  // FNV-1a
  uint64_t h = 0xcbf29ce484222325u;
  for (const char c : name) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return h;
}

// Uniform in (0, 1], 53 bits.
double uniform(uint64_t key, uint64_t counter) {
  return (static_cast<double>(mix(key ^ mix(counter)) >> 11) + 1) * 0x1p-53;
}

// The value that a number in (0, 1] stands for.
double shaped(const ParameterSpec& spec, double u) {
  if (spec.initial == Initial::convolution) return (2 * u - 1) / std::sqrt(static_cast<double>(spec.shape.back()));
  if (spec.initial == Initial::log_decay) return std::log(1 + 15 * u);
  const double step = 0.001 * std::pow(100.0, u);
  return step + std::log(-std::expm1(-step));  // log(exp(step) - 1)
}

}  // namespace

int64_t ParameterSpec::num_elements() const {
  int64_t n = 1;
  for (const int64_t extent : shape) n *= extent;
  return n;
}

int64_t num_elements(const std::vector<ParameterSpec>& specs) {
  int64_t n = 0;
  for (const ParameterSpec& spec : specs) n += spec.num_elements();
  return n;
}

std::vector<ParameterSpec> parameter_specs(const ModelConfig& c) {
  std::vector<ParameterSpec> specs;
  const auto norm = [&](const std::string& name, int64_t width) {
    specs.push_back({name + ".weight", {width}, Initial::ones});
  };
  const auto matrix = [&](const std::string& name, int64_t out, int64_t in) {
    specs.push_back({name + ".weight", {out, in}, Initial::normal});
  };
  const auto linear = [&](const std::string& name, int64_t out, int64_t in, bool has_bias) {
    matrix(name, out, in);
    if (has_bias) specs.push_back({name + ".bias", {out}, Initial::zeros});
  };
  const int64_t query_width = c.num_attention_heads * c.head_dim;
  const int64_t kv_width = c.num_key_value_heads * c.head_dim;
  matrix("model.embed_tokens", c.vocab_size, c.hidden_size);
  for (int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i);
    norm(layer + ".input_layernorm", c.hidden_size);
    if (!c.is_softmax(i)) {
      append_linear_specs(c, c.layer_types[static_cast<size_t>(i)], layer + ".linear_attn", &specs);
    } else {
      linear(layer + ".self_attn.q_proj", query_width, c.hidden_size, c.qkv_bias);
      linear(layer + ".self_attn.k_proj", kv_width, c.hidden_size, c.qkv_bias);
      linear(layer + ".self_attn.v_proj", kv_width, c.hidden_size, c.qkv_bias);
      linear(layer + ".self_attn.o_proj", c.hidden_size, query_width, c.output_bias);
      if (c.qk_norm) {
        norm(layer + ".self_attn.q_norm", c.head_dim);
        norm(layer + ".self_attn.k_norm", c.head_dim);
      }
    }
    norm(layer + ".post_attention_layernorm", c.hidden_size);
    linear(layer + ".mlp.gate_proj", c.intermediate_size, c.hidden_size, c.mlp_bias);
    linear(layer + ".mlp.up_proj", c.intermediate_size, c.hidden_size, c.mlp_bias);
    linear(layer + ".mlp.down_proj", c.hidden_size, c.intermediate_size, c.mlp_bias);
  }
  norm("model.norm", c.hidden_size);
  if (!c.tie_word_embeddings) matrix("lm_head", c.vocab_size, c.hidden_size);
  return specs;
}

void initial_values(const ModelConfig& config, const ParameterSpec& spec, uint64_t seed, int64_t begin, int64_t end,
                    double* values) {
  if (spec.initial == Initial::ones || spec.initial == Initial::zeros) {
    std::fill(values, values + (end - begin), spec.initial == Initial::ones ? 1.0 : 0.0);
    return;
  }
  const uint64_t key = mix(seed ^ mix(hash_name(spec.name)));
  if (spec.initial != Initial::normal) {
    for (int64_t i = begin; i < end; ++i) {
      values[i - begin] = shaped(spec, uniform(key, static_cast<uint64_t>(i)));
    }
    return;
  }
  for (int64_t i = begin; i < end; ++i) {
    // Box-Muller: elements 2j and 2j + 1 share a radius and an angle.
    const auto pair = static_cast<uint64_t>(i & ~int64_t{1});
    const double radius = std::sqrt(-2.0 * std::log(uniform(key, pair)));
    const double angle = 2.0 * std::numbers::pi * uniform(key, pair + 1);
    values[i - begin] = config.initializer_range * radius * (i % 2 == 0 ? std::cos(angle) : std::sin(angle));
  }
}

void Parameters::add(std::string name, at::Tensor tensor) {
  const bool is_new = index_.emplace(name, items_.size()).second;
  EVENSPAN_CHECK_OP(is_new, ==, true);
  items_.emplace_back(std::move(name), std::move(tensor));
}

const at::Tensor& Parameters::at(const std::string& name) const {
  const auto found = index_.find(name);
  if (found == index_.end()) fail_invalid("[parameters] there is no parameter ", name, " among ", items_.size());
  return items_[found->second].second;
}

Parameters make_initial_parameters(const ModelConfig& config, uint64_t seed, at::ScalarType type) {
  Parameters parameters;
  for (const ParameterSpec& spec : parameter_specs(config)) {
    at::Tensor values = at::empty(spec.shape, at::kDouble);
    initial_values(config, spec, seed, 0, spec.num_elements(), values.mutable_data_ptr<double>());
    parameters.add(spec.name, values.to(type));
  }
  return parameters;
}

void require_gradients(const Parameters& parameters) {
  for (const auto& [name, tensor] : parameters.items()) tensor.requires_grad_(true);
}

}  // namespace evenspan::nn
