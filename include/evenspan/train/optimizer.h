// AdamW over flat parameters, its state cut into equal ranges over the ranks (ZeRO-1).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "evenspan/comm/communicator.h"
#include "evenspan/nn/parameters.h"
#include "evenspan/train/config.h"

namespace evenspan::train {

// The learning rate of a step, from 1: linear warm-up to learning_rate, then a cosine to min_learning_rate at
// `decay_steps` (0: `total_steps`), which stays.
double learning_rate_at(const OptimizerConfig& config, int64_t step, int64_t total_steps);

// Parameters in one flat buffer of the compute type; every rank keeps master values and moments, in float32 (float64
// for float64 models), of its own range of elements. Collective members are called by all ranks in the same order.
class ShardedAdamW {
 public:
  // `specs` in the order of the flat buffer. All values are 0 until set_masters.
  ShardedAdamW(std::vector<nn::ParameterSpec> specs, at::ScalarType compute_type, const OptimizerConfig& config,
               comm::Communicator communicator);

  // The elements of this rank: [begin, end) of the flat order.
  int64_t begin() const { return begin_; }
  int64_t end() const { return end_; }

  // Leaves that require gradients; views of the flat buffer, which every step rewrites.
  const nn::Parameters& parameters() const { return parameters_; }

  // Sets this rank's masters from `values` [end - begin] and rewrites every rank's parameters. Collective.
  void set_masters(const at::Tensor& values);

  // Takes the gradients that are there to those of the step, in the master type; backward adds to what it takes next.
  // For a step of several micro-batches, between them; no rank waits for another here.
  void accumulate();

  // Sums the gradients over the ranks in rank order, clips their global norm, updates, and gathers the parameters.
  // Those are what accumulate() took and what is there; a missing one counts as 0, and all are cleared. Returns the
  // norm before clipping. Collective. Throws resource when the norm is not finite: nothing is updated then.
  double step(double learning_rate);

  // Flat state of all ranks, [elements], for checkpoints. Collective.
  struct State {
    at::Tensor masters, first_moments, second_moments;
    int64_t num_updates = 0;
  };
  State gather_state() const;
  // Takes this rank's range out of the full state and rewrites every rank's parameters. Collective.
  void restore(const State& state);

  // The part of a flat tensor that belongs to parameter `i`, in its shape.
  at::Tensor slice(const at::Tensor& flat, size_t i) const;
  const std::vector<nn::ParameterSpec>& specs() const { return specs_; }
  at::ScalarType master_type() const { return master_type_; }
  // Bytes of masters and moments on this rank.
  int64_t state_bytes() const;

 private:
  void take_gradients();
  double gradient_norm(const at::Tensor& part) const;
  void publish();

  std::vector<nn::ParameterSpec> specs_;
  std::vector<int64_t> offsets_;  // [parameter]
  OptimizerConfig config_;
  comm::Communicator communicator_;
  at::ScalarType master_type_;
  int64_t num_elements_ = 0;
  int64_t shard_ = 0;  // elements of a rank, padding included
  int64_t begin_ = 0, end_ = 0;
  at::Tensor flat_;  // [shard * ranks], compute type
  nn::Parameters parameters_;
  at::Tensor gradients_;  // as flat_, master type: what accumulate() took in this step; undefined if nothing
  at::Tensor masters_, first_, second_, decay_;  // [end - begin]
  int64_t num_updates_ = 0;
};

}  // namespace evenspan::train
