// A decoder of the Llama family over packed tokens.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "evenspan/nn/model_config.h"
#include "evenspan/nn/parameters.h"
#include "evenspan/run/executable.h"
#include "evenspan/run/linear.h"

namespace evenspan::nn {

// (query [n, heads, head_dim], key and value [n, kv heads, head_dim]) -> [n, heads, head_dim].
using Attention = std::function<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&)>;

// What reaches from token to token. Models of softmax layers alone need the first.
struct Mixers {
  Attention attention;
  std::function<at::Tensor(const run::LinearInput&, const run::LinearOptions&)> linear_attention;  // the output
  std::function<at::Tensor(const at::Tensor& x, const at::Tensor& weight)> convolution;  // run::short_convolution's
};

class LinearLayer;

// Computes what transformers' LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM or Qwen3ForCausalLM computes for
// each document alone. Rotary angles are made in float64, so at large positions they are nearer the exact ones than
// theirs. Norms and rotations are computed in float32 (float64 for float64 models). Layers of linear attention
// (ModelConfig::layer_types) stand in the place of softmax ones, without positions.
class Decoder {
 public:
  // REQUIRES: `parameters` holds every name of parameter_specs(config) in its shape, all of one floating type; throws
  // invalid_argument otherwise.
  Decoder(const ModelConfig& config, Parameters parameters);

  // ids [n] and positions [n] (inside the document, from 0), int64: this rank's rows. Returns the normed last hidden
  // states [n, hidden_size]. n may be 0: the mixers are called all the same, forward and backward.
  at::Tensor forward(const at::Tensor& ids, const at::Tensor& positions, const Mixers& mixers) const;
  // The same over the plan, the states of linear layers by `transport`. Every rank of the plan calls it.
  at::Tensor forward(const at::Tensor& ids, const at::Tensor& positions, const run::Executable& executable,
                     const std::string& transport = run::LinearOptions().transport) const;

  // [vocab_size, hidden_size]; the embedding where they are tied.
  const at::Tensor& head_weight() const { return head_; }
  at::Tensor logits(const at::Tensor& hidden) const;

  const ModelConfig& config() const { return config_; }
  const Parameters& parameters() const { return parameters_; }

 private:
  struct Projection {
    at::Tensor weight, bias;  // bias undefined if there is none
    at::Tensor operator()(const at::Tensor& x) const;
  };
  struct Layer {
    at::Tensor input_norm, attention_norm, query_norm, key_norm;
    Projection query, key, value, output, gate, up, down;
    std::shared_ptr<const LinearLayer> linear;  // in place of query to output
  };
  struct Rotation {
    at::Tensor cosine, sine;  // [n, 1, head_dim / 2]
  };

  Projection projection(const std::string& prefix) const;
  at::Tensor normed(const at::Tensor& x, const at::Tensor& weight) const;
  at::Tensor softmax_attention(const Layer& layer, const at::Tensor& x, const Rotation& rotation,
                               const Attention& attention) const;
  Rotation rotation(const at::Tensor& positions) const;

  ModelConfig config_;
  Parameters parameters_;
  std::vector<Layer> layers_;
  at::Tensor embedding_, final_norm_, head_;
};

// What a linear layer of the config's shape computes with, as plan::lower_linear takes it. REQUIRES: `layer_type` is
// one of linear_layer_types().
plan::AttentionShape linear_shape(const ModelConfig& config, const std::string& layer_type, plan::ElementType element);

// The type in which sums over the elements of `type` are taken: float64 for float64, otherwise float32.
at::ScalarType accumulation_type(at::ScalarType type);

}  // namespace evenspan::nn
