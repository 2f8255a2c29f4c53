// Checkpoints: folders `step-00000100` that hold a Hugging Face model (config.json, float32 or float64 weights), the
// optimiser's moments by parameter name, the trainer's state, and a manifest with checksums of all of them. None of it
// depends on the number of ranks.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "evenspan/nn/model_config.h"
#include "evenspan/train/checkpoint_files.h"
#include "evenspan/train/config.h"
#include "evenspan/train/optimizer.h"

namespace evenspan::train {

// Files of a model that others need to use it, as the tokenizer's: (name, contents).
using Companions = std::vector<std::pair<std::string, std::string>>;

// Writes `folder`/step-N in full under another name, flushes it, and renames it: a folder of that name is complete.
// Then removes all but the newest `keep` (0: none is removed). REQUIRES: one rank calls it.
// `companions` are files beside the weights.
void save_checkpoint(const std::string& folder, const nn::ModelConfig& model, const Companions& companions,
                     const ShardedAdamW& optimizer, const ShardedAdamW::State& state, const TrainerState& trainer,
                     const Config& config, int64_t keep);

struct Checkpoint {
  TrainerState trainer;
  ShardedAdamW::State state;
};
// Throws invalid_argument when the checkpoint is of another model (the differing fields are named), type, or is broken
// (require_whole).
Checkpoint load_checkpoint(const std::string& path, const nn::ModelConfig& model, const ShardedAdamW& optimizer);

}  // namespace evenspan::train
