#include "evenspan/train/report.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>

#include "evenspan/core/error.h"
#include "evenspan/nn/model_config.h"
#include "evenspan/nn/safetensors.h"
#include "evenspan/train/checkpoint_files.h"

namespace evenspan::train {
namespace {

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

}  // namespace

double weight_distance(const std::string& checkpoint, const std::string& reference) {
  for (const std::string& folder : {checkpoint, reference}) require_whole(folder);
  const nn::ModelConfig model = nn::load_model_config(reference);
  if (const auto differing = nn::differences(nn::load_model_config(checkpoint), model); !differing.empty()) {
    fail_invalid("[compare] ", checkpoint, " and ", reference, " must be of one model: ", differing.front());
  }
  const nn::Parameters a = nn::load_weights(checkpoint, model, at::kDouble);
  const nn::Parameters b = nn::load_weights(reference, model, at::kDouble);
  double difference = 0;
  double norm = 0;
  for (const auto& [name, tensor] : b.items()) {
    difference += (a.at(name) - tensor).square().sum().item<double>();
    norm += tensor.square().sum().item<double>();
  }
  return std::sqrt(difference) / std::sqrt(norm);
}

Comparison compare_runs(const std::string& run, const std::string& reference,
                        const std::vector<std::string>& repacked) {
  Comparison c;
  c.run = read_run(run);
  c.reference = read_run(reference);
  const int64_t last = c.run.steps.back().step;
  if (c.reference.steps.back().step != last || c.reference.steps.size() != c.run.steps.size() ||
      c.reference.dtype != c.run.dtype) {
    fail_invalid("[compare] runs must have the same steps and dtype; ", run, " has ", c.run.steps.size(), " of ",
                 c.run.dtype, " and ", reference, " has ", c.reference.steps.size(), " of ", c.reference.dtype);
  }
  c.distance = weight_distance(c.run.checkpoint, c.reference.checkpoint);
  for (const std::string& folder : repacked) {
    const RunRecord other = read_run(folder);
    if (other.steps.back().step != last || other.dtype != c.run.dtype) {
      fail_invalid("[compare] repacked runs must end after step ", last, " and be of ", c.run.dtype, "; ", folder,
                   " ends after step ", other.steps.back().step, " and is of ", other.dtype);
    }
    c.repacked_distances.push_back(weight_distance(other.checkpoint, c.reference.checkpoint));
  }
  if (c.run.dtype == "float64") {
    c.allowed_distance = 1e-8;
  } else if (!repacked.empty()) {
    c.allowed_distance = std::max(1e-6, 10 * median(c.repacked_distances));
  } else {
    fail_invalid("[compare] ", c.run.dtype,
                 " runs are measured against one-rank runs of other data.pack_order, none was given; name five");
  }
  for (size_t i = 0; i < c.run.steps.size(); ++i) {
    if (c.run.steps[i].step != c.reference.steps[i].step) {
      fail_invalid("[compare] runs must have the same steps; ", run, " has step ", c.run.steps[i].step, " where ",
                   reference, " has step ", c.reference.steps[i].step);
    }
    c.largest_loss_difference =
        std::max(c.largest_loss_difference, std::abs(c.run.steps[i].loss - c.reference.steps[i].loss));
  }
  c.first_loss_difference = std::abs(c.run.steps[0].loss - c.reference.steps[0].loss);
  c.equal = c.distance <= c.allowed_distance && c.first_loss_difference <= 1e-6;
  return c;
}

}  // namespace evenspan::train
