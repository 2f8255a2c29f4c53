#include "evenspan/nn/decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "evenspan/core/error.h"
#include "nn/linear_layer.h"

namespace evenspan::nn {
namespace {

// rotate_half of Hugging Face: the first half of a head is paired with the second.
at::Tensor rotated(const at::Tensor& x, const at::Tensor& cosine, const at::Tensor& sine) {
  const auto halves = x.to(cosine.scalar_type()).chunk(2, -1);
  const at::Tensor& a = halves[0];
  const at::Tensor& b = halves[1];
  return at::cat({a * cosine - b * sine, b * cosine + a * sine}, -1).to(x.scalar_type());
}

// weight [vocabulary, hidden], ids [tokens] -> [tokens, hidden]. The rows of a token that comes often are many: their
// gradients are summed in the accumulation type and rounded once, where at::embedding adds 16 bits on the CPU.
struct Embedding : torch::autograd::Function<Embedding> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& weight,
                            const at::Tensor& ids) {
    context->save_for_backward({ids});
    context->saved_data["vocabulary"] = weight.size(0);
    return at::embedding(weight, ids);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grad_outputs) {
    const at::Tensor& grad = grad_outputs[0];
    const at::Tensor wide = grad.to(accumulation_type(grad.scalar_type()));
    const at::Tensor sums = at::zeros({context->saved_data["vocabulary"].toInt(), grad.size(1)}, wide.options())
                                .index_add_(0, context->get_saved_variables()[0], wide);
    return {sums.to(grad.scalar_type()), at::Tensor()};
  }
};

}  // namespace

at::ScalarType accumulation_type(at::ScalarType type) { return type == at::kDouble ? at::kDouble : at::kFloat; }

Decoder::Decoder(const ModelConfig& config, Parameters parameters)
    : config_(config), parameters_(std::move(parameters)) {
  const at::ScalarType type = parameters_.at("model.embed_tokens.weight").scalar_type();
  for (const ParameterSpec& spec : parameter_specs(config_)) {
    const at::Tensor& tensor = parameters_.at(spec.name);
    if (tensor.sizes() != at::IntArrayRef(spec.shape) || tensor.scalar_type() != type) {
      fail_invalid("[decoder] the parameter ", spec.name, " must be ", at::IntArrayRef(spec.shape), " of ", type,
                   ", it is ", tensor.sizes(), " of ", tensor.scalar_type());
    }
  }
  for (int64_t i = 0; i < config_.num_hidden_layers; ++i) {
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    Layer layer;
    layer.input_norm = parameters_.at(prefix + "input_layernorm.weight");
    layer.attention_norm = parameters_.at(prefix + "post_attention_layernorm.weight");
    if (!config_.is_softmax(i)) {
      layer.linear = std::make_shared<const LinearLayer>(config_, config_.layer_types[static_cast<size_t>(i)],
                                                         parameters_, prefix + "linear_attn");
    } else {
      if (config_.qk_norm) {
        layer.query_norm = parameters_.at(prefix + "self_attn.q_norm.weight");
        layer.key_norm = parameters_.at(prefix + "self_attn.k_norm.weight");
      }
      layer.query = projection(prefix + "self_attn.q_proj");
      layer.key = projection(prefix + "self_attn.k_proj");
      layer.value = projection(prefix + "self_attn.v_proj");
      layer.output = projection(prefix + "self_attn.o_proj");
    }
    layer.gate = projection(prefix + "mlp.gate_proj");
    layer.up = projection(prefix + "mlp.up_proj");
    layer.down = projection(prefix + "mlp.down_proj");
    layers_.push_back(std::move(layer));
  }
  embedding_ = parameters_.at("model.embed_tokens.weight");
  final_norm_ = parameters_.at("model.norm.weight");
  head_ = config_.tie_word_embeddings ? embedding_ : parameters_.at("lm_head.weight");
}

Decoder::Projection Decoder::projection(const std::string& prefix) const {
  Projection p{parameters_.at(prefix + ".weight"), {}};
  if (parameters_.contains(prefix + ".bias")) p.bias = parameters_.at(prefix + ".bias");
  return p;
}

at::Tensor Decoder::normed(const at::Tensor& x, const at::Tensor& weight) const {
  const at::Tensor wide = x.to(accumulation_type(x.scalar_type()));
  const at::Tensor mean_square = wide.square().mean(-1, /*keepdim=*/true);
  return weight * (wide * at::rsqrt(mean_square + config_.rms_norm_eps)).to(x.scalar_type());
}

Decoder::Rotation Decoder::rotation(const at::Tensor& positions) const {
  const auto options = positions.options().dtype(at::kDouble);
  const at::Tensor exponents = at::arange(0, config_.head_dim, 2, options) / static_cast<double>(config_.head_dim);
  const at::Tensor frequencies = at::pow(config_.rope_theta, -exponents);
  const at::Tensor angles = positions.to(at::kDouble).unsqueeze(1) * frequencies.unsqueeze(0);
  const at::ScalarType type = accumulation_type(embedding_.scalar_type());
  return {angles.cos().to(type).unsqueeze(1), angles.sin().to(type).unsqueeze(1)};
}

at::Tensor Decoder::Projection::operator()(const at::Tensor& x) const { return at::linear(x, weight, bias); }

at::Tensor Decoder::softmax_attention(const Layer& layer, const at::Tensor& x, const Rotation& r,
                                      const Attention& attention) const {
  const int64_t n = x.size(0);
  const auto heads = [&](const Projection& p, int64_t num_heads) {
    return p(x).view({n, num_heads, config_.head_dim});
  };
  at::Tensor query = heads(layer.query, config_.num_attention_heads);
  at::Tensor key = heads(layer.key, config_.num_key_value_heads);
  const at::Tensor value = heads(layer.value, config_.num_key_value_heads);
  if (config_.qk_norm) {
    query = normed(query, layer.query_norm);
    key = normed(key, layer.key_norm);
  }
  const at::Tensor mixed = attention(rotated(query, r.cosine, r.sine), rotated(key, r.cosine, r.sine), value);
  return layer.output(mixed.reshape({n, config_.num_attention_heads * config_.head_dim}));
}

at::Tensor Decoder::forward(const at::Tensor& ids, const at::Tensor& positions, const Mixers& mixers) const {
  if (ids.dim() != 1 || ids.sizes() != positions.sizes() || ids.scalar_type() != at::kLong ||
      positions.scalar_type() != at::kLong) {
    fail_invalid("[decoder] ids and positions must be int64 of one length; they are ", ids.scalar_type(), ids.sizes(),
                 " and ", positions.scalar_type(), positions.sizes());
  }
  const Rotation r = rotation(positions);
  at::Tensor hidden = Embedding::apply(embedding_, ids);
  for (const Layer& layer : layers_) {
    const at::Tensor x = normed(hidden, layer.input_norm);
    hidden =
        hidden + (layer.linear ? layer.linear->forward(x, mixers) : softmax_attention(layer, x, r, mixers.attention));
    const at::Tensor y = normed(hidden, layer.attention_norm);
    hidden = hidden + layer.down(at::silu(layer.gate(y)) * layer.up(y));
  }
  return normed(hidden, final_norm_);
}

at::Tensor Decoder::forward(const at::Tensor& ids, const at::Tensor& positions, const run::Executable& executable,
                            const std::string& transport) const {
  Mixers mixers;
  mixers.attention = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return run::attention(q, k, v, executable);
  };
  mixers.linear_attention = [&](const run::LinearInput& input, run::LinearOptions options) {
    options.transport = transport;
    return run::linear_attention(input, executable, options).output;
  };
  mixers.convolution = [&](const at::Tensor& x, const at::Tensor& weight) {
    return run::short_convolution(x, weight, {}, executable);
  };
  return forward(ids, positions, mixers);
}

at::Tensor Decoder::logits(const at::Tensor& hidden) const { return at::linear(hidden, head_); }

}  // namespace evenspan::nn
