// Hugging Face config.json files: what the simulator weighs of a model, or why it does not.
#include <algorithm>
#include <limits>
#include <optional>
#include <set>

#include "evenspan/core/error.h"
#include "evenspan/core/quoted.h"
#include "evenspan/machine/machine_files.h"
#include "files/json.h"
#include "files/json_fields.h"
#include "machine/model_families.h"

namespace evenspan::machine {
namespace {

using files::Fields;
using files::parse_json;

struct LinearKind {
  const char* name;
  plan::Gate gate;
  bool delta_rule = false;
  bool normalized = false;  // a column of values more
};
constexpr LinearKind kLinearKinds[] = {
    {"linear", plan::Gate::none, false, true},
    {"lightning", plan::Gate::head},
    {"mamba2", plan::Gate::token},
    {"gla", plan::Gate::channel},
    {"deltanet", plan::Gate::none, true},
    {"gated_deltanet", plan::Gate::token, true},
    {"kda", plan::Gate::channel, true},
};

bool is_linear(const std::string& type) {
  return std::any_of(std::begin(kLinearKinds), std::end(kLinearKinds),
                     [&](const LinearKind& kind) { return type == kind.name; });
}

// The names that families have for a key, the usual one first.
using Names = std::initializer_list<const char*>;
constexpr Names kLayers = {"num_hidden_layers", "n_layer", "n_layers", "num_layers"};
constexpr Names kHidden = {"hidden_size", "n_embd", "d_model"};
constexpr Names kHeads = {"num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"};
constexpr Names kKvHeads = {"num_key_value_heads", "num_kv_heads"};
constexpr Names kIntermediate = {"intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"};
constexpr Names kExperts = {"num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"};
constexpr Names kActive = {"num_experts_per_tok", "moe_topk", "moe_k", "num_experts_per_token", "experts_per_token"};
constexpr Names kSharedExperts = {"n_shared_experts", "num_shared_experts", "moe_num_shared_experts"};
constexpr Names kSharedWidth = {"shared_expert_intermediate_size", "shared_intermediate_size"};
constexpr Names kDenseLayers = {"first_k_dense_replace", "num_dense_layers"};
constexpr Names kSparseStep = {"decoder_sparse_step", "moe_layer_interval"};
constexpr Names kPattern = {"sliding_window_pattern", "_sliding_window_pattern"};

constexpr int64_t kMostLayers = 1 << 16;

// Null, false, or an empty list.
bool is_unset(const nlohmann::json& value) {
  return value.is_null() || value == false || ((value.is_array() || value.is_object()) && value.empty());
}

const ModelFamily* family_of(const nlohmann::json& config) {
  const auto type = config.find("model_type");
  return type != config.end() && type->is_string() ? find_family(type->get<std::string>()) : nullptr;
}

nlohmann::json with_defaults(const nlohmann::json& config, const ModelFamily* family) {
  if (family == nullptr || family->defaults.empty()) return config;
  nlohmann::json whole = nlohmann::json::parse(family->defaults);
  whole.update(config);
  return whole;
}

// Reads one model's keys; what was asked for counts as understood.
class ModelReader {
 public:
  ModelReader(const nlohmann::json& given, const std::string& file, const std::string& path)
      : given_(given),
        family_(family_of(given)),
        json_(with_defaults(given, family_)),
        in_(json_, "model config", file, path),
        where_("[model config] " + file + ": " + (path.empty() ? "" : path + ".")) {}

  simulate::Model read() {
    refuse_what_is_not_weighed();
    model_.num_layers = count(kLayers);
    if (model_.num_layers > kMostLayers) in_.refuse(name_of(kLayers), join_text("it is at most ", kMostLayers));
    model_.hidden = size(kHidden);
    model_.vocabulary = size({"vocab_size"});
    read_heads();
    read_mlps();
    read_layer_types();
    refuse_others();
    simulate::validate(model_);
    return model_;
  }

 private:
  bool has(const std::string& key) {
    understood_.insert(key);
    return in_.has(key);
  }
  bool flag(const std::string& key, bool otherwise = false) {
    if (!has(key)) return otherwise;
    if (!json_.at(key).is_boolean()) in_.refuse(key, "it is true or false");
    return json_.at(key).get<bool>();
  }
  std::string text(const std::string& key) { return has(key) ? in_.text(key) : ""; }
  // The name that the config uses, or its family's defaults; the first where neither does.
  std::string name_of(Names names) {
    understood_.insert(names.begin(), names.end());
    for (const nlohmann::json* json : {&given_, &json_}) {
      for (const char* name : names) {
        if (json->contains(name)) return name;
      }
    }
    return *names.begin();
  }
  // Not negative, and so small that products of two do not overflow.
  int64_t size(Names names, std::optional<int64_t> otherwise = std::nullopt) {
    const std::string name = name_of(names);
    const int64_t value = otherwise ? in_.whole(name, *otherwise) : in_.whole(name);
    if (value < 0 || value > std::numeric_limits<int32_t>::max()) in_.refuse(name, "it is not negative and below 2^31");
    return value;
  }
  int32_t count(Names names, std::optional<int64_t> otherwise = std::nullopt) {
    return static_cast<int32_t>(size(names, otherwise));
  }

  void refuse_what_is_not_weighed() {
    for (const auto& [key, value] : json_.items()) {
      const std::string_view reason = reason_against(key);
      if (reason.empty() || is_unset(value) || says_what_is_so_anyway(key)) continue;
      fail_invalid(where_, key, " is ", quoted(value.dump(), 60), "; ", reason);
    }
    if (family_ != nullptr) return;
    if (has("is_decoder") && !flag("is_decoder")) {
      in_.refuse("is_decoder", "attention to later tokens is not weighed, causal attention and windows are");
    }
    const std::string key = in_.has("hidden_activation") ? "hidden_activation" : "hidden_act";
    if (in_.has(key) && in_.text(key) != "silu") {
      in_.refuse(key, "of a model_type that is not known only models with silu are weighed, whose MLPs are gated");
    }
  }

  bool says_what_is_so_anyway(const std::string& key) {
    understood_.insert(key);
    if (key == "word_embed_proj_dim") return json_.at(key) == json_.value("hidden_size", nlohmann::json());
    if (key == "v_head_dim") return json_.at(key) == json_.value("head_dim", nlohmann::json());
    return key == "num_kv_shared_layers" && json_.at(key) == 0;
  }

  void read_heads() {
    plan::AttentionShape& shape = model_.shape;
    shape.num_heads = count(kHeads);
    if (shape.num_heads < 1) in_.refuse(name_of(kHeads), "it is at least 1");
    const bool one_kv_head = flag("multi_query") && !flag("new_decoder_architecture");
    // Other model types than Llama's, where it was once left out, may mean anything by that.
    const bool must_say = family_ == nullptr && !text("model_type").empty();
    const int32_t kv_heads = must_say ? count(kKvHeads) : count(kKvHeads, shape.num_heads);
    shape.num_kv_heads = one_kv_head ? 1 : kv_heads;
    if (shape.num_kv_heads < 1 || shape.num_heads % shape.num_kv_heads != 0) {
      in_.refuse(name_of(kKvHeads), join_text("it divides the ", shape.num_heads, " query heads"));
    }
    shape.head_dim = count({"head_dim"}, model_.hidden / shape.num_heads);
    if (shape.head_dim < 1) in_.refuse("head_dim", "it is at least 1");
  }

  std::vector<std::string> types(const std::string& key) {
    const std::vector<std::string> types = in_.texts(key);
    if (static_cast<int64_t>(types.size()) != model_.num_layers) {
      in_.refuse(key, join_text("it lists ", types.size(), " layers of ", model_.num_layers));
    }
    return types;
  }

  // [layer]: whether its MLP consists of experts.
  std::vector<bool> expert_layers() {
    const auto layers = static_cast<size_t>(model_.num_layers);
    std::vector<bool> experts(layers, true);
    const bool listed = has("mlp_layer_types");
    const int64_t dense = size(kDenseLayers, 0);
    const int64_t step = size(kSparseStep, 1);
    const std::vector<int64_t> only = has("mlp_only_layers") ? in_.wholes("mlp_only_layers") : std::vector<int64_t>{};
    const int64_t first = size({"moe_layer_start_index"}, dense);
    const int64_t last = has("moe_layer_end_index") ? in_.whole("moe_layer_end_index") : -1;  // -1: the last layer
    if (step < 1) in_.refuse(name_of(kSparseStep), "it is at least 1");
    if (listed) {
      const std::vector<std::string> kinds = types("mlp_layer_types");
      for (size_t i = 0; i < layers; ++i) {
        if (kinds[i] != "dense" && kinds[i] != "sparse") {
          in_.refuse("mlp_layer_types", "layers are dense or sparse");
        }
        experts[i] = kinds[i] == "sparse";
      }
      return experts;
    }
    for (size_t i = 0; i < layers; ++i) {
      const auto layer = static_cast<int64_t>(i);
      experts[i] = layer >= first && (last < 0 || layer <= last) && (layer + 1) % step == 0 &&
                   std::find(only.begin(), only.end(), layer) == only.end();
    }
    return experts;
  }

  void read_mlps() {
    const int32_t num_experts = count(kExperts, 0);
    const bool has_expert_width = has("moe_intermediate_size") && num_experts > 0;
    if (family_ != nullptr && family_->four_times_wide) {
      model_.intermediate = size(kIntermediate, 4 * model_.hidden);
    } else if (has_expert_width) {
      model_.intermediate = size(kIntermediate, 0);  // where all layers have experts
    } else {
      model_.intermediate = size(kIntermediate);
    }
    const int64_t width = has_expert_width ? size({"moe_intermediate_size"}) : model_.intermediate;
    const int64_t shared = size(kSharedWidth, 0) + width * size(kSharedExperts, 0);
    const std::vector<bool> experts = expert_layers();
    const int32_t active = count(kActive, 0);
    const auto num_sparse =
        num_experts == 0 ? 0 : static_cast<int32_t>(std::count(experts.begin(), experts.end(), true));
    const int32_t num_dense = model_.num_layers - num_sparse;
    const int32_t num_products = family_ == nullptr ? 3 : family_->num_products;
    if (num_dense > 0 && model_.intermediate == 0)
      in_.refuse(name_of(kIntermediate), "layers without experts have this width");
    if (model_.intermediate == 0) model_.intermediate = width;
    if (num_dense > 0) model_.mlps.push_back({num_dense, num_products, model_.intermediate, 1, 1, 0});
    if (num_sparse == 0) return;
    if (family_ == nullptr) {
      in_.refuse(name_of(kExperts), "of a model_type that is not known only models without experts are weighed");
    }
    if (active < 1 || active > num_experts) {
      in_.refuse(name_of(kActive), join_text("it says how many of the ", num_experts, " experts a token passes"));
    }
    model_.mlps.push_back({num_sparse, num_products, width, num_experts, active, shared});
  }

  // Layers that have a window by the family's rule, where the config does not list them.
  int32_t num_windows_by_rule() {
    const WindowRule rule = family_ == nullptr ? WindowRule::listed : family_->windows;
    const bool by_most = rule == WindowRule::from_max_window_layers || rule == WindowRule::even_below_max_window_layers;
    const int64_t most = by_most ? size({"max_window_layers"}) : 0;
    const int64_t nth = rule == WindowRule::but_every_nth ? size(kPattern) : 1;
    if (nth < 1) in_.refuse(name_of(kPattern), "it is at least 1");
    int32_t number = 0;
    for (int32_t layer = 0; layer < model_.num_layers; ++layer) {
      switch (rule) {
        case WindowRule::listed:
          in_.refuse("sliding_window", "layer_types says which layers have the window; give it, or set this to null");
        case WindowRule::every_layer:
          ++number;
          break;
        case WindowRule::but_every_nth:
          number += (layer + 1) % nth != 0 ? 1 : 0;
          break;
        case WindowRule::from_max_window_layers:
          number += layer >= most ? 1 : 0;
          break;
        case WindowRule::even_below_max_window_layers:
          number += layer % 2 == 0 && layer < most ? 1 : 0;
          break;
      }
    }
    return number;
  }

  // Softmax layers with windows, and linear ones.
  void read_layer_types() {
    understood_.insert({"max_window_layers", "sliding_window_pattern", "_sliding_window_pattern"});
    const bool is_used = flag("use_sliding_window", family_ == nullptr || !family_->has_switch);
    const int64_t given = size({"sliding_window"}, 0);
    const int64_t window = is_used ? given : 0;
    int32_t num_windows = 0;
    if (has("layer_types")) {
      const std::vector<std::string> listed = types("layer_types");
      num_windows = static_cast<int32_t>(std::count(listed.begin(), listed.end(), "sliding_attention"));
      read_linear_layers(listed);
    } else if (window > 0) {
      num_windows = num_windows_by_rule();
    }
    if (num_windows == 0) return;
    if (window < 1) {
      in_.refuse(is_used ? "sliding_window" : "use_sliding_window",
                 join_text("layer_types lists ", num_windows, " layers with a window"));
    }
    model_.windows.push_back({num_windows, window});
  }

  void read_linear_layers(const std::vector<std::string>& listed) {
    for (const std::string& type : listed) {
      if (type == "full_attention" || type == "sliding_attention" || is_linear(type)) continue;
      fail_invalid(where_, "layer_types has ", quoted(type),
                   "; full_attention, sliding_attention and linear layers of docs/linear.md are weighed");
    }
    for (const LinearKind& kind : kLinearKinds) {
      const auto number = static_cast<int32_t>(std::count(listed.begin(), listed.end(), kind.name));
      if (number == 0) continue;
      plan::AttentionShape shape = model_.shape;
      shape.num_heads = shape.num_kv_heads = count({"linear_num_heads"});
      shape.head_dim = count({"linear_key_dim"});
      shape.state = {count({"linear_value_dim"}) + (kind.normalized ? 1 : 0), kind.gate, kind.delta_rule, false, false};
      model_.linear.push_back({number, shape});
    }
  }

  void refuse_others() {
    for (const auto& [key, value] : json_.items()) {
      if (is_unset(value) || understood_.contains(key) || is_harmless(key)) continue;
      fail_invalid(where_, key, " is ", quoted(value.dump(), 60),
                   ", which is not weighed; take it out if it says nothing of the model's sizes and masks");
    }
  }

  const nlohmann::json& given_;
  const ModelFamily* const family_;  // null: not in the table
  const nlohmann::json json_;        // with the family's defaults
  const Fields in_;
  const std::string where_;  // begins errors
  std::set<std::string> understood_;
  simulate::Model model_;
};

}  // namespace

ModelFile parse_model(const std::string& text, const std::string& file) {
  const nlohmann::json json = parse_json(text, "model config", file);
  const Fields in(json, "model config", file);
  const std::string path = in.has("text_config") ? "text_config" : "";
  const nlohmann::json& own = path.empty() ? json : json.at(path);
  Fields(own, "model config", file, path);  // throws unless it is an object
  for (const auto& [key, value] : json.items()) {
    if (!reason_against(key).empty() && !path.empty() && !is_unset(value)) {
      fail_invalid("[model config] ", file, ": ", key, " is ", quoted(value.dump(), 60), "; ", reason_against(key));
    }
  }
  ModelFile read{ModelReader(own, file, path).read(), ""};
  for (const auto& [key, value] : json.items()) {
    if (key == path || !key.ends_with("_config") || !value.is_object()) continue;
    read.note +=
        join_text(read.note.empty() ? "the language model of " + file + " alone is weighed, without " : ", ", key);
  }
  return read;
}

}  // namespace evenspan::machine
