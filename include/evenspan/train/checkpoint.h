// Checkpoints: folders `step-00000100` that hold a Hugging Face model (config.json, float32 or float64 weights), the
// optimiser's moments by parameter name, and the trainer's state. None of it depends on the number of ranks.
#pragma once

#include <cstdint>
#include <string>

#include "evenspan/nn/model_config.h"
#include "evenspan/train/batches.h"
#include "evenspan/train/config.h"
#include "evenspan/train/optimizer.h"

namespace evenspan::train {

struct TrainerState {
  int64_t step = 0;
  Cursor cursor;
  uint64_t data_fingerprint = 0;
  // Initial weights and data order are functions of these and of the cursor: the whole random state.
  int64_t data_seed = 0;
  int64_t model_seed = 0;
  int64_t tokens_seen = 0;
};

// Writes `folder`/step-N in full under another name, flushes it, and renames it: a folder of that name is complete.
// Then removes all but the newest `keep` (0: none is removed). REQUIRES: one rank calls it.
void save_checkpoint(const std::string& folder, const nn::ModelConfig& model, const ShardedAdamW& optimizer,
                     const ShardedAdamW::State& state, const TrainerState& trainer, const Config& config, int64_t keep);

struct Checkpoint {
  TrainerState trainer;
  ShardedAdamW::State state;
};
// Throws invalid_argument when the checkpoint is of another model (the differing fields are named), type, or is
// damaged.
Checkpoint load_checkpoint(const std::string& path, const nn::ModelConfig& model, const ShardedAdamW& optimizer);

// The newest complete checkpoint below `folder`; empty if there is none.
std::string latest_checkpoint(const std::string& folder);

// Where save_checkpoint puts a step, and the step of such a path (-1 for any other).
std::string checkpoint_path(const std::string& folder, int64_t step);
int64_t checkpoint_step(const std::string& path);

}  // namespace evenspan::train
