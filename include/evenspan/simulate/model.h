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

// MLPs that are all alike. Their matrices have the hidden size on one side.
struct MlpLayers {
  int32_t count = 0;         // >= 1
  int32_t num_products = 3;  // of a token in each: 3 where it is gated, else 2
  int64_t width = 0;         // of the MLP, or of each of its experts; >= 1
  int32_t num_experts = 1;   // >= 1
  int32_t num_active = 1;    // experts that a token passes, in [1, num_experts]
  int64_t shared_width = 0;  // of experts that every token passes besides, >= 0

  // Columns of all matrices and of those that a token passes, a router's among them.
  double columns(int32_t experts) const {
    return num_products *
               (static_cast<double>(experts) * static_cast<double>(width) + static_cast<double>(shared_width)) +
           (num_experts > 1 ? num_experts : 0);
  }
};

// A decoder (Llama, Qwen, Mistral, ...). The defaults are those of Llama 3 8B.
struct Model {
  plan::AttentionShape shape{32, 8, 128, plan::ElementType::bf16};
  int32_t num_layers = 32;           // >= 1
  int64_t hidden = 4096;             // >= 1
  int64_t intermediate = 14336;      // width of the gated MLPs of layers that are not in `mlps`, >= 1
  int64_t vocabulary = 128256;       // >= 0; 0: the output layer is left out
  std::vector<MlpLayers> mlps = {};  // NOLINT(readability-redundant-member-init): as in CostModel; of num_layers
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

  // Operations of one token's forward, two for each weight that it meets: query, key and value projections; output
  // projection and MLP, the mean over the layers; the output layer, once in a model.
  double before_attention_flops() const {
    return 2.0 * static_cast<double>(hidden) * (shape.num_heads + 2.0 * shape.num_kv_heads) * shape.head_dim;
  }
  double after_attention_flops() const {
    const double mlp = mlp_columns([](const MlpLayers& mlp) { return mlp.num_active; }) / num_layers;
    return 2.0 * static_cast<double>(hidden) * (static_cast<double>(shape.num_heads) * shape.head_dim + mlp);
  }
  double output_layer_flops() const { return 2.0 * static_cast<double>(hidden) * static_cast<double>(vocabulary); }
  // Of all token-wise layers. Those of linear layers count as those of softmax layers.
  double token_flops() const {
    return num_layers * (before_attention_flops() + after_attention_flops()) + output_layer_flops();
  }

  // Weights of all layers' matrices, without embeddings and the output layer; and those that a token meets.
  double layer_weights() const {
    return weights([](const MlpLayers& mlp) { return mlp.num_experts; });
  }
  double active_layer_weights() const {
    return weights([](const MlpLayers& mlp) { return mlp.num_active; });
  }

 private:
  // Of all layers, with so many experts of each.
  template <class Experts>
  double mlp_columns(Experts&& experts) const {
    double columns = 0;
    int32_t others = num_layers;
    for (const MlpLayers& mlp : mlps) {
      columns += mlp.count * mlp.columns(experts(mlp));
      others -= mlp.count;
    }
    return columns + others * 3.0 * static_cast<double>(intermediate);
  }
  template <class Experts>
  double weights(Experts&& experts) const {
    const double attention = 2.0 * (shape.num_heads + shape.num_kv_heads) * shape.head_dim;
    return static_cast<double>(hidden) * (num_layers * attention + mlp_columns(experts));
  }
};

// Throws invalid_argument for the first broken rule.
void validate(const Model& model);

}  // namespace evenspan::simulate
