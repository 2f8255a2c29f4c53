// What a decoder is: the fields of a Hugging Face config.json that change its mathematics.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace evenspan::nn {

// Fields carry the names of config.json. The families differ by the flags alone; a hybrid is a Llama some of whose
// layers are linear.
struct ModelConfig {
  std::string model_type = "llama";  // llama, mistral, qwen2, qwen3, evenspan_hybrid
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;  // divides num_attention_heads
  int64_t head_dim = 0;             // even
  int64_t max_position_embeddings = 2048;
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000.0;
  double initializer_range = 0.02;
  bool tie_word_embeddings = false;
  bool qkv_bias = false;     // qwen2, or llama with attention_bias
  bool output_bias = false;  // llama or qwen3 with attention_bias
  bool mlp_bias = false;     // llama
  bool qk_norm = false;      // qwen3

  // Of evenspan_hybrid: the kind of every layer, "full_attention" or one of linear_layer_types(); empty: all softmax.
  std::vector<std::string> layer_types;
  int64_t linear_num_heads = 0;
  int64_t linear_key_dim = 0;
  int64_t linear_value_dim = 0;
  int64_t linear_conv_kernel = 0;  // width of a short convolution of queries, keys and values; 0: none

  bool is_softmax(int64_t layer) const {
    return layer_types.empty() || layer_types[static_cast<size_t>(layer)] == "full_attention";
  }
  int64_t num_softmax_layers() const;

  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

// "linear", "lightning", "mamba2", "gla", "deltanet", "gated_deltanet", "kda".
const std::vector<std::string>& linear_layer_types();

// Reads the text of a config.json; `source` names it in errors. Throws invalid_argument for malformed text, missing or
// impossible values, and unsupported for a correct model that differs from what `Decoder` computes: another family or
// activation, scaled or partial rotary embeddings, dropout, sliding windows in use, quantised weights.
ModelConfig parse_model_config(const std::string& text, const std::string& source);

// The config.json at `path`, or inside the folder `path`.
ModelConfig load_model_config(const std::string& path);

// The text of a config.json that `transformers` and parse_model_config read back to the same model.
// `dtype` is recorded for the reader: "float32", "bfloat16" or "float64".
std::string to_json(const ModelConfig& config, const std::string& dtype);

// "hidden_size: 128 against 256" for each field that differs; empty for equal models.
std::vector<std::string> differences(const ModelConfig& a, const ModelConfig& b);

}  // namespace evenspan::nn
