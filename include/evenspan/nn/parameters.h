// The parameters of a decoder: their names and shapes, in one fixed order, and their values.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "evenspan/nn/model_config.h"

namespace evenspan::nn {

enum class Initial : uint8_t {
  normal,
  ones,
  zeros,
  convolution,  // uniform within 1 / sqrt(width), as torch's
  log_decay,    // Mamba's A_log: log of uniform in [1, 16)
  time_step,    // Mamba's dt_bias: what softplus maps to log-uniform in [0.001, 0.1)
};

struct ParameterSpec {
  std::string name;  // Hugging Face's, "model.layers.0.self_attn.q_proj.weight"
  std::vector<int64_t> shape;
  Initial initial = Initial::normal;

  int64_t num_elements() const;
  // Matrices decay; norms and biases do not.
  bool decays() const { return shape.size() >= 2; }
};

// Every parameter once, embedding first, then layer by layer, then the final norm and, unless tied, the head.
std::vector<ParameterSpec> parameter_specs(const ModelConfig& config);
int64_t num_elements(const std::vector<ParameterSpec>& specs);

// Writes elements [begin, end) of the initial value of a parameter, in row-major order. They depend on the seed, the
// parameter's name and the element's index only, so any rank can make any part. Normal values have mean 0 and deviation
// `config.initializer_range`.
void initial_values(const ModelConfig& config, const ParameterSpec& spec, uint64_t seed, int64_t begin, int64_t end,
                    double* values);

// An ordered map from name to tensor.
class Parameters {
 public:
  // REQUIRES: the name is new.
  void add(std::string name, at::Tensor tensor);

  int64_t size() const { return static_cast<int64_t>(items_.size()); }
  bool contains(const std::string& name) const { return index_.contains(name); }
  // Throws invalid_argument when there is no such parameter.
  const at::Tensor& at(const std::string& name) const;
  // In the order of addition.
  const std::vector<std::pair<std::string, at::Tensor>>& items() const { return items_; }

 private:
  std::vector<std::pair<std::string, at::Tensor>> items_;
  std::unordered_map<std::string, size_t> index_;
};

// The initial values of a whole model, of a floating type.
Parameters make_initial_parameters(const ModelConfig& config, uint64_t seed, at::ScalarType type);

// Makes the tensors leaves that collect gradients.
void require_gradients(const Parameters& parameters);

}  // namespace evenspan::nn
