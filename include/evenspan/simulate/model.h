// The model whose step is simulated.
#pragma once

#include <cstdint>
#include <vector>

#include "evenspan/plan/linear.h"
#include "evenspan/plan/request.h"

namespace evenspan::simulate {

// Layers of linear attention that are all alike.
struct LinearLayers {
  int32_t count = 0;           // >= 1
  plan::AttentionShape shape;  // of a linear layer
};

// Softmax layers whose queries see no more than so many keys, a query's own the last of them.
struct WindowLayers {
  int32_t count = 0;   // >= 1
  int64_t window = 0;  // keys, >= 1
};

// A decoder with gated MLPs (Llama, Qwen, Mistral). The defaults are those of Llama 3 8B.
struct Model {
  plan::AttentionShape shape{32, 8, 128, plan::ElementType::bf16};
  int32_t num_layers = 32;       // >= 1
  int64_t hidden = 4096;         // >= 1
  int64_t intermediate = 14336;  // >= 1
  int64_t vocabulary = 128256;   // >= 0; 0: the output layer is left out
  // Of num_layers; narrowest first. The other softmax layers see what the documents' masks allow.
  std::vector<WindowLayers> windows = {};  // NOLINT(readability-redundant-member-init): as in CostModel
  // Of num_layers; the others are softmax.
  std::vector<LinearLayers> linear = {};  // NOLINT(readability-redundant-member-init): as in CostModel
  plan::StateOptions states = {};  // NOLINT(readability-redundant-member-init): how those of linear layers travel

  int32_t num_softmax_layers() const {
    int32_t left = num_layers;
    for (const LinearLayers& layers : linear) left -= layers.count;
    return left;
  }

  // Of the softmax layers.
  int32_t num_unwindowed_layers() const {
    int32_t left = num_softmax_layers();
    for (const WindowLayers& layers : windows) left -= layers.count;
    return left;
  }

  // Of all layers.
  void set_element(plan::ElementType element) {
    shape.element = element;
    for (LinearLayers& layers : linear) layers.shape.element = element;
  }

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
  // Of all token-wise layers. Those of linear layers count as those of softmax layers.
  double token_flops() const {
    return num_layers * (before_attention_flops() + after_attention_flops()) + output_layer_flops();
  }
};

// Throws invalid_argument for the first broken rule.
void validate(const Model& model);

}  // namespace evenspan::simulate
