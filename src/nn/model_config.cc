#include "evenspan/nn/model_config.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <filesystem>
#include <map>

#include "evenspan/core/error.h"
#include "evenspan/core/nearest.h"
#include "files/input_file.h"
#include "files/json.h"

namespace evenspan::nn {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMost = int64_t{1} << 31;        // of any size
constexpr int64_t kMostLayers = int64_t{1} << 14;  // each of which has a list of parameters

// A value in a message: ASCII, and not all of a long one.
std::string shown(const Json& value) {
  constexpr size_t kMostBytes = 100;
  const std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true);
  return text.size() > kMostBytes ? text.substr(0, kMostBytes) + "..." : text;
}

// Reads typed fields of one config.json; every error names the file and the field.
class Reader {
 public:
  Reader(const Json& json, const std::string& source) : json_(json), source_(source) {}

  bool has(const char* key) const { return json_.contains(key) && !json_.at(key).is_null(); }

  int64_t positive(const char* key) const {
    if (!has(key)) fail_invalid("[model config] ", source_, ": the field ", key, " is missing");
    return positive(key, 0);
  }
  int64_t positive(const char* key, int64_t otherwise) const {
    if (!has(key)) return otherwise;
    const Json& value = json_.at(key);
    if (!value.is_number_integer() || value.get<int64_t>() < 1 || value.get<int64_t>() > kMost) {
      fail_invalid("[model config] ", source_, ": ", key, " must be a positive integer of at most ", kMost, ", it is ",
                   shown(value));
    }
    return value.get<int64_t>();
  }
  double number(const char* key, double otherwise, double least = 0, double most = 1e9) const {
    return has(key) ? number_in(json_.at(key), key, least, most) : otherwise;
  }
  // The same of a field of an object, which `key` names.
  double number_in(const Json& value, const std::string& key, double least, double most) const {
    if (!value.is_number() || !(value.get<double>() >= least && value.get<double>() <= most)) {
      fail_invalid("[model config] ", source_, ": ", key, " must be a number from ", least, " to ", most, ", it is ",
                   shown(value));
    }
    return value.get<double>();
  }
  bool flag(const char* key, bool otherwise) const {
    if (!has(key)) return otherwise;
    const Json& value = json_.at(key);
    if (!value.is_boolean()) {
      fail_invalid("[model config] ", source_, ": ", key, " must be true or false, it is ", shown(value));
    }
    return value.get<bool>();
  }
  std::string text(const char* key, const std::string& otherwise) const {
    if (!has(key)) return otherwise;
    const Json& value = json_.at(key);
    if (!value.is_string()) {
      fail_invalid("[model config] ", source_, ": ", key, " must be a text, it is ", shown(value));
    }
    return value.get<std::string>();
  }
  const Json& object(const char* key) const {
    const Json& value = json_.at(key);
    if (!value.is_object()) {
      fail_invalid("[model config] ", source_, ": ", key, " must be an object, it is ", shown(value));
    }
    return value;
  }
  const Json& list(const char* key) const {
    const Json& value = json_.at(key);
    if (!value.is_array()) {
      fail_invalid("[model config] ", source_, ": ", key, " must be a list, it is ", shown(value));
    }
    return value;
  }
  [[noreturn]] void refuse(const char* key, const std::string& rule) const {
    fail(ErrorKind::unsupported, "[model config] ", source_, ": ", rule, "; ", key, " is ",
         json_.contains(key) ? shown(json_.at(key)) : std::string("missing"));
  }

 private:
  const Json& json_;
  const std::string& source_;
};

constexpr const char* kHybrid = "evenspan_hybrid";

// The kinds of the layers, and the shape of the linear ones.
void read_linear_layers(const Reader& in, const std::string& source, ModelConfig* c) {
  if (!in.has("layer_types")) {
    fail_invalid("[model config] ", source, ": an evenspan_hybrid needs layer_types, a name for each of its ",
                 c->num_hidden_layers, " layers");
  }
  std::vector<std::string> known{"full_attention"};
  known.insert(known.end(), linear_layer_types().begin(), linear_layer_types().end());
  for (const Json& kind : in.list("layer_types")) {
    const std::string name = kind.is_string() ? kind.get<std::string>() : shown(kind);
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      std::string list;
      for (const std::string& one : known) list += (list.empty() ? "" : ", ") + one;
      fail_invalid("[model config] ", source, ": layer_types has ", shown(kind), "; there are ", list,
                   did_you_mean(name, known));
    }
    c->layer_types.push_back(name);
  }
  if (static_cast<int64_t>(c->layer_types.size()) != c->num_hidden_layers) {
    fail_invalid("[model config] ", source, ": layer_types has ", c->layer_types.size(), " names for ",
                 c->num_hidden_layers, " layers; give one for each");
  }
  if (c->num_softmax_layers() == c->num_hidden_layers) return;
  c->linear_num_heads = in.positive("linear_num_heads");
  c->linear_key_dim = in.positive("linear_key_dim");
  c->linear_value_dim = in.positive("linear_value_dim");
  if (in.number("linear_conv_kernel", 0) != 0) c->linear_conv_kernel = in.positive("linear_conv_kernel");
}

// The base of the rotary embedding, from the old (rope_theta, rope_scaling) or the new (rope_parameters) fields.
double read_rope_theta(const Reader& in) {
  constexpr double kMostTheta = 1e15;
  double theta = in.number("rope_theta", 10000.0, 1, kMostTheta);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!in.has(key)) continue;
    const Json& rope = in.object(key);
    for (const char* kind : {"rope_type", "type"}) {
      if (rope.contains(kind) && rope.at(kind) != "default")
        in.refuse(key, "only default rotary embeddings are supported");
    }
    if (rope.contains("partial_rotary_factor") && rope.at("partial_rotary_factor") != 1.0) {
      in.refuse(key, "partial rotary embeddings are not supported");
    }
    if (rope.contains("rope_theta")) {
      theta = in.number_in(rope.at("rope_theta"), join_text(key, ".rope_theta"), 1, kMostTheta);
    }
  }
  if (in.number("partial_rotary_factor", 1.0) != 1.0) {
    in.refuse("partial_rotary_factor", "partial rotary embeddings are not supported");
  }
  return theta;
}

void refuse_unsupported(const Reader& in, const std::string& model_type) {
  if (in.text("hidden_act", "silu") != "silu") in.refuse("hidden_act", "only the activation silu is supported");
  for (const char* key : {"attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop"}) {
    if (in.number(key, 0.0) != 0.0) in.refuse(key, "dropout is not supported, set it to 0");
  }
  if (in.has("quantization_config")) in.refuse("quantization_config", "quantised weights are not supported");
  if (in.positive("pretraining_tp", 1) != 1) in.refuse("pretraining_tp", "only 1 is supported");
  // Qwen switches its window on with use_sliding_window, Mistral by giving one.
  const bool window_in_use = model_type == "mistral" ? in.has("sliding_window") : in.flag("use_sliding_window", false);
  if (window_in_use) in.refuse("sliding_window", "sliding windows are not supported, set it to null");
  if (in.has("layer_types")) {
    for (const Json& kind : in.list("layer_types")) {
      if (kind != "full_attention" && model_type != kHybrid) {
        in.refuse("layer_types", "only full_attention layers are supported, others in the model type evenspan_hybrid");
      }
    }
  }
}

}  // namespace

const std::vector<std::string>& linear_layer_types() {
  static const std::vector<std::string> kTypes = {"linear",   "lightning",      "mamba2", "gla",
                                                  "deltanet", "gated_deltanet", "kda"};
  return kTypes;
}

int64_t ModelConfig::num_softmax_layers() const {
  int64_t count = 0;
  for (int64_t i = 0; i < num_hidden_layers; ++i) count += is_softmax(i) ? 1 : 0;
  return count;
}

ModelConfig parse_model_config(const std::string& text, const std::string& source) {
  const Json json = files::parse_json(text, "model config", source);
  if (!json.is_object()) fail_invalid("[model config] ", source, " must hold one JSON object, {...}");
  const Reader in(json, source);
  ModelConfig c;
  c.model_type = in.text("model_type", "");
  const bool llama = c.model_type == "llama";
  const bool qwen2 = c.model_type == "qwen2";
  const bool qwen3 = c.model_type == "qwen3";
  if (!llama && !qwen2 && !qwen3 && c.model_type != "mistral" && c.model_type != kHybrid) {
    in.refuse("model_type",
              "the supported model types are llama, mistral, qwen2 and qwen3, and evenspan_hybrid for linear layers");
  }
  refuse_unsupported(in, c.model_type);
  c.vocab_size = in.positive("vocab_size");
  c.hidden_size = in.positive("hidden_size");
  c.intermediate_size = in.positive("intermediate_size");
  c.num_hidden_layers = in.positive("num_hidden_layers");
  if (c.num_hidden_layers > kMostLayers) {
    fail_invalid("[model config] ", source, ": num_hidden_layers must be at most ", kMostLayers, ", it is ",
                 c.num_hidden_layers);
  }
  c.num_attention_heads = in.positive("num_attention_heads");
  c.num_key_value_heads = in.positive("num_key_value_heads", c.num_attention_heads);
  if (c.num_attention_heads % c.num_key_value_heads != 0) {
    fail_invalid("[model config] ", source, ": num_key_value_heads must divide num_attention_heads, they are ",
                 c.num_key_value_heads, " and ", c.num_attention_heads);
  }
  if (!in.has("head_dim") && c.hidden_size % c.num_attention_heads != 0) {
    fail_invalid("[model config] ", source,
                 ": without head_dim, num_attention_heads must divide hidden_size, they are ", c.num_attention_heads,
                 " and ", c.hidden_size);
  }
  // Qwen3's class has 128 as its default, the others derive it.
  c.head_dim = in.positive("head_dim", qwen3 ? 128 : c.hidden_size / c.num_attention_heads);
  if (c.head_dim % 2 != 0) fail_invalid("[model config] ", source, ": head_dim must be even, it is ", c.head_dim);
  c.max_position_embeddings = in.positive("max_position_embeddings", 2048);
  c.rms_norm_eps = in.number("rms_norm_eps", 1e-6, 0, 1);
  c.rope_theta = read_rope_theta(in);
  c.initializer_range = in.number("initializer_range", 0.02, 0, 100);
  c.tie_word_embeddings = in.flag("tie_word_embeddings", false);
  const bool attention_bias = (llama || qwen3) && in.flag("attention_bias", false);
  c.qkv_bias = qwen2 || attention_bias;
  c.output_bias = attention_bias;
  c.mlp_bias = llama && in.flag("mlp_bias", false);
  c.qk_norm = qwen3;
  if (c.model_type == kHybrid) read_linear_layers(in, source, &c);
  return c;
}

ModelConfig load_model_config(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  const std::string file = fs::is_directory(path, error) ? (fs::path(path) / "config.json").string() : path;
  return parse_model_config(files::read_text(file, "model config"), file);
}

std::string to_json(const ModelConfig& c, const std::string& dtype) {
  static const std::map<std::string, std::string> kClasses = {{"llama", "LlamaForCausalLM"},
                                                              {"mistral", "MistralForCausalLM"},
                                                              {"qwen2", "Qwen2ForCausalLM"},
                                                              {"qwen3", "Qwen3ForCausalLM"},
                                                              {kHybrid, "EvenspanHybridForCausalLM"}};
  nlohmann::ordered_json json = {
      {"architectures", {kClasses.at(c.model_type)}},
      {"model_type", c.model_type},
      {"vocab_size", c.vocab_size},
      {"hidden_size", c.hidden_size},
      {"intermediate_size", c.intermediate_size},
      {"num_hidden_layers", c.num_hidden_layers},
      {"num_attention_heads", c.num_attention_heads},
      {"num_key_value_heads", c.num_key_value_heads},
      {"head_dim", c.head_dim},
      {"max_position_embeddings", c.max_position_embeddings},
      {"hidden_act", "silu"},
      {"rms_norm_eps", c.rms_norm_eps},
      {"rope_theta", c.rope_theta},
      {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", c.rope_theta}}},
      {"initializer_range", c.initializer_range},
      {"tie_word_embeddings", c.tie_word_embeddings},
      {"attention_dropout", 0.0},
      {"torch_dtype", dtype},
      {"dtype", dtype},
  };
  if (c.model_type == "llama" || c.model_type == "qwen3") json["attention_bias"] = c.output_bias;
  if (c.model_type == "llama") json["mlp_bias"] = c.mlp_bias;
  if (c.model_type == "mistral") json["sliding_window"] = nullptr;
  if (c.model_type == kHybrid) {
    json["layer_types"] = c.layer_types;
    if (c.num_softmax_layers() < c.num_hidden_layers) {
      json["linear_num_heads"] = c.linear_num_heads;
      json["linear_key_dim"] = c.linear_key_dim;
      json["linear_value_dim"] = c.linear_value_dim;
      json["linear_conv_kernel"] = c.linear_conv_kernel;
    }
  }
  return json.dump(2) + "\n";
}

std::vector<std::string> differences(const ModelConfig& a, const ModelConfig& b) {
  std::vector<std::string> out;
  const auto compare = [&](const char* name, const auto& x, const auto& y) {
    if (!(x == y)) out.push_back(join_text(name, ": ", x, " against ", y));
  };
  compare("model_type", a.model_type, b.model_type);
  compare("vocab_size", a.vocab_size, b.vocab_size);
  compare("hidden_size", a.hidden_size, b.hidden_size);
  compare("intermediate_size", a.intermediate_size, b.intermediate_size);
  compare("num_hidden_layers", a.num_hidden_layers, b.num_hidden_layers);
  compare("num_attention_heads", a.num_attention_heads, b.num_attention_heads);
  compare("num_key_value_heads", a.num_key_value_heads, b.num_key_value_heads);
  compare("head_dim", a.head_dim, b.head_dim);
  compare("max_position_embeddings", a.max_position_embeddings, b.max_position_embeddings);
  compare("rms_norm_eps", a.rms_norm_eps, b.rms_norm_eps);
  compare("rope_theta", a.rope_theta, b.rope_theta);
  compare("initializer_range", a.initializer_range, b.initializer_range);
  compare("tie_word_embeddings", a.tie_word_embeddings, b.tie_word_embeddings);
  compare("qkv_bias", a.qkv_bias, b.qkv_bias);
  compare("output_bias", a.output_bias, b.output_bias);
  compare("mlp_bias", a.mlp_bias, b.mlp_bias);
  compare("qk_norm", a.qk_norm, b.qk_norm);
  for (size_t i = 0; i < std::min(a.layer_types.size(), b.layer_types.size()); ++i) {
    compare(("layer_types[" + std::to_string(i) + "]").c_str(), a.layer_types[i], b.layer_types[i]);
  }
  compare("layer_types", a.layer_types.size(), b.layer_types.size());
  compare("linear_num_heads", a.linear_num_heads, b.linear_num_heads);
  compare("linear_key_dim", a.linear_key_dim, b.linear_key_dim);
  compare("linear_value_dim", a.linear_value_dim, b.linear_value_dim);
  compare("linear_conv_kernel", a.linear_conv_kernel, b.linear_conv_kernel);
  return out;
}

}  // namespace evenspan::nn
