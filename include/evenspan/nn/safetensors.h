// Tensors and models on disk, in Hugging Face's formats.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "evenspan/nn/model_config.h"
#include "evenspan/nn/parameters.h"

namespace evenspan::nn {

// An open safetensors file: only what is read is loaded. A value; copies share the file.
class SafetensorsFile {
 public:
  // Throws resource when the file cannot be read and invalid_argument when it is truncated or malformed.
  explicit SafetensorsFile(const std::string& path);

  std::vector<std::string> names() const;  // sorted
  bool contains(const std::string& name) const;
  // Both throw invalid_argument when there is none of that name.
  std::vector<int64_t> shape(const std::string& name) const;
  // A copy of the tensor, in the type of the file. Throws resource when the file changed since it was opened.
  at::Tensor tensor(const std::string& name) const;
  const std::map<std::string, std::string>& metadata() const;

 private:
  struct Contents;
  std::shared_ptr<const Contents> contents_;
};

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// Writes the tensors, in this order, and flushes them to the disk. Throws resource when the disk refuses.
void write_safetensors(const std::string& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata = {});

// Writes text and flushes it to the disk.
void write_file(const std::string& path, const std::string& text);

constexpr int64_t kDefaultShardBytes = 5'000'000'000;

// Writes config.json and the weights into an existing folder: model.safetensors, or, when they have more than
// `max_shard_bytes`, model-0000i-of-0000n.safetensors and model.safetensors.index.json.
void save_model(const std::string& folder, const ModelConfig& config, const NamedTensors& weights,
                int64_t max_shard_bytes = kDefaultShardBytes);

// Reads the weights of a model from such a folder, converted to `type`. Throws invalid_argument for a missing tensor, a
// tensor that the model does not have, or a shape that differs; a stored copy of a tied head is left out.
Parameters load_weights(const std::string& folder, const ModelConfig& config, at::ScalarType type);

}  // namespace evenspan::nn
