// The model whose step is simulated.
#pragma once

#include <cstdint>

#include "evenspan/plan/request.h"

namespace evenspan::simulate {

// A decoder with gated MLPs (Llama, Qwen, Mistral). The defaults are those of Llama 3 8B.
struct Model {
  plan::AttentionShape shape{32, 8, 128, plan::ElementType::bf16};
  int32_t num_layers = 32;       // >= 1
  int64_t hidden = 4096;         // >= 1
  int64_t intermediate = 14336;  // >= 1
  int64_t vocabulary = 128256;   // >= 0; 0: the output layer is left out

  // Operations of one token's forward, two for each weight: query, key and value projections; output projection and
  // MLP; the output layer, once in a model.
  double before_attention_flops() const {
    return 2.0 * static_cast<double>(hidden) * (shape.num_heads + 2.0 * shape.num_kv_heads) * shape.head_dim;
  }
  double after_attention_flops() const {
    return 2.0 * static_cast<double>(hidden) *
           (static_cast<double>(shape.num_heads) * shape.head_dim + 3.0 * static_cast<double>(intermediate));
  }
  double output_layer_flops() const { return 2.0 * static_cast<double>(hidden) * static_cast<double>(vocabulary); }
};

// Throws invalid_argument for the first broken rule.
void validate(const Model& model);

}  // namespace evenspan::simulate
