// Whole models on disk: config.json and sharded weights.
#include <nlohmann/json.hpp>

#include <cstdio>
#include <filesystem>

#include "evenspan/core/error.h"
#include "evenspan/nn/safetensors.h"
#include "nn/safetensors_header.h"

namespace evenspan::nn {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

std::string shard_name(size_t i, size_t n) {
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, n);
  return name;
}

std::string dtype_name(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return "float64";
    case at::kFloat:
      return "float32";
    case at::kBFloat16:
      return "bfloat16";
    case at::kHalf:
      return "float16";
    default:
      fail_invalid("[model] weights must be of a floating type, not ", c10::toString(type));
  }
}

// name -> the open file that holds it.
std::map<std::string, SafetensorsFile> open_weights(const fs::path& folder) {
  std::map<std::string, SafetensorsFile> files;
  if (!fs::exists(folder / kIndex)) {
    if (!fs::exists(folder / kSingle)) {
      fail(ErrorKind::resource, "[model] ", folder.string(), " must hold ", kSingle, " or ", kIndex,
           "; it holds neither");
    }
    const SafetensorsFile file((folder / kSingle).string());
    for (const std::string& name : file.names()) files.emplace(name, file);
    return files;
  }
  const std::string index_path = (folder / kIndex).string();
  std::map<std::string, SafetensorsFile> shards;
  for (const auto& [name, shard] : read_weight_map(index_path)) {
    auto found = shards.find(shard);
    if (found == shards.end()) found = shards.emplace(shard, SafetensorsFile((folder / shard).string())).first;
    if (!found->second.contains(name))
      fail_invalid("[model] ", index_path, " says that ", shard, " holds ", name, "; it does not");
    files.emplace(name, found->second);
  }
  return files;
}

}  // namespace

void save_model(const std::string& folder, const ModelConfig& config, const NamedTensors& weights,
                int64_t max_shard_bytes) {
  EVENSPAN_CHECK_OP(weights.size(), >, 0u);
  const fs::path root(folder);
  const std::map<std::string, std::string> metadata = {{"format", "pt"}};
  write_file((root / "config.json").string(), to_json(config, dtype_name(weights[0].second.scalar_type())));
  std::vector<NamedTensors> shards(1);
  int64_t shard_bytes = 0;
  int64_t total_bytes = 0;
  for (const auto& item : weights) {
    const auto bytes = static_cast<int64_t>(item.second.nbytes());
    if (shard_bytes > 0 && shard_bytes + bytes > max_shard_bytes) {
      shards.emplace_back();
      shard_bytes = 0;
    }
    shards.back().push_back(item);
    shard_bytes += bytes;
    total_bytes += bytes;
  }
  if (shards.size() == 1) {
    write_safetensors((root / kSingle).string(), weights, metadata);
    return;
  }
  Json map = Json::object();
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shard_name(i, shards.size());
    write_safetensors((root / name).string(), shards[i], metadata);
    for (const auto& item : shards[i]) map[item.first] = name;
  }
  const Json index = {{"metadata", {{"total_size", total_bytes}}}, {"weight_map", map}};
  write_file((root / kIndex).string(), index.dump(2) + "\n");
}

Parameters load_weights(const std::string& folder, const ModelConfig& config, at::ScalarType type) {
  std::map<std::string, SafetensorsFile> files = open_weights(folder);
  Parameters parameters;
  for (const ParameterSpec& spec : parameter_specs(config)) {
    const auto found = files.find(spec.name);
    if (found == files.end())
      fail_invalid("[model] ", folder, " has no tensor ", spec.name, ", which its config.json asks for");
    if (const std::vector<int64_t> shape = found->second.shape(spec.name); shape != spec.shape) {
      fail_invalid("[model] ", folder, ": ", spec.name, " must be ", at::IntArrayRef(spec.shape), ", it is ",
                   at::IntArrayRef(shape));
    }
    parameters.add(spec.name, found->second.tensor(spec.name).to(type));
    files.erase(found);
  }
  if (config.tie_word_embeddings) files.erase("lm_head.weight");
  for (auto& [name, file] : files) {
    if (name.ends_with("rotary_emb.inv_freq")) continue;  // old exports carry this table
    fail_invalid("[model] ", folder, " holds the tensor ", name, ", which the model of its config.json does not have");
  }
  return parameters;
}

}  // namespace evenspan::nn
