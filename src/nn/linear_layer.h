// Layers of linear attention: projections, short convolution, gates, recurrence, output norm and gate.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "evenspan/nn/decoder.h"
#include "evenspan/nn/model_config.h"
#include "evenspan/nn/parameters.h"

namespace evenspan::nn {

// What tells the kinds apart. Sources: Lightning Attention-2 (arXiv 2401.04658, decays of its heads; gate as in
// MiniMax-01, 2501.08313), Mamba-2 (2405.21060), GLA (2312.06635), DeltaNet (2406.06484), Gated DeltaNet (2412.06464),
// KDA (Kimi Linear, 2510.26692), linear attention with elu + 1 (2006.16236).
struct LinearKind {
  enum class Gate : uint8_t { none, fixed, step, diagonal, low_rank } gate = Gate::none;
  enum class OutputGate : uint8_t { none, silu, sigmoid } output_gate = OutputGate::none;
  bool delta = false;      // beta, and keys and queries of length 1
  bool activated = false;  // silu of queries, keys and values, also without a convolution
  bool positive = false;   // elu + 1 of queries and keys, normalised
  bool stepped = false;    // values times the step of the gate, and a skip of values by head
};
LinearKind linear_kind(const std::string& layer_type);  // REQUIRES: one of linear_layer_types()

// Appends what a layer of the kind has, names beginning with `prefix` ("model.layers.0.linear_attn").
void append_linear_specs(const ModelConfig& config, const std::string& layer_type, const std::string& prefix,
                         std::vector<ParameterSpec>* specs);

class LinearLayer {
 public:
  LinearLayer(const ModelConfig& config, const std::string& layer_type, const Parameters& parameters,
              const std::string& prefix);

  // x [n, hidden_size], normed; returns [n, hidden_size]. Calls the mixers whatever n is.
  at::Tensor forward(const at::Tensor& x, const Mixers& mixers) const;

 private:
  at::Tensor weight(const char* name) const;  // undefined where the kind has none
  at::Tensor gate(const at::Tensor& x, at::Tensor* step) const;

  LinearKind kind_;
  int64_t heads_, key_dim_, value_dim_;
  double epsilon_;
  Parameters own_;  // by the name after the prefix
  at::Tensor fixed_decay_;
};

}  // namespace evenspan::nn
