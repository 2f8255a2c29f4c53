// A decoder of the Llama family over packed tokens.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "evenspan/nn/model_config.h"
#include "evenspan/nn/parameters.h"
#include "evenspan/run/executable.h"

namespace evenspan::nn {

// (query [n, heads, head_dim], key and value [n, kv heads, head_dim]) -> [n, heads, head_dim].
using Attention = std::function<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&)>;

// Computes what transformers' LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM or Qwen3ForCausalLM computes for
// each document alone. Rotary angles are made in float64, so at large positions they are nearer the exact ones than
// theirs. Norms and rotations are computed in float32 (float64 for float64 models).
class Decoder {
 public:
  // REQUIRES: `parameters` holds every name of parameter_specs(config) in its shape, all of one floating type; throws
  // invalid_argument otherwise.
  Decoder(const ModelConfig& config, Parameters parameters);

  // ids [n] and positions [n] (inside the document, from 0), int64: this rank's rows. Returns the normed last hidden
  // states [n, hidden_size]. n may be 0: attention is called all the same, forward and backward.
  at::Tensor forward(const at::Tensor& ids, const at::Tensor& positions, const Attention& attention) const;
  // The same with run::attention over the plan. Every rank of the plan calls it.
  at::Tensor forward(const at::Tensor& ids, const at::Tensor& positions, const run::Executable& executable) const;

  // [vocab_size, hidden_size]; the embedding where they are tied.
  const at::Tensor& head_weight() const { return head_; }
  at::Tensor logits(const at::Tensor& hidden) const;

  const ModelConfig& config() const { return config_; }
  const Parameters& parameters() const { return parameters_; }

 private:
  struct Projection {
    at::Tensor weight, bias;  // bias undefined if there is none
  };
  struct Layer {
    at::Tensor input_norm, attention_norm, query_norm, key_norm;
    Projection query, key, value, output, gate, up, down;
  };
  struct Rotation {
    at::Tensor cosine, sine;  // [n, 1, head_dim / 2]
  };

  Projection projection(const std::string& prefix) const;
  at::Tensor normed(const at::Tensor& x, const at::Tensor& weight) const;
  Rotation rotation(const at::Tensor& positions) const;

  ModelConfig config_;
  Parameters parameters_;
  std::vector<Layer> layers_;
  at::Tensor embedding_, final_norm_, head_;
};

// The type in which sums over the elements of `type` are taken: float64 for float64, otherwise float32.
at::ScalarType accumulation_type(at::ScalarType type);

}  // namespace evenspan::nn
