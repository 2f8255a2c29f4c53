// The files of checkpoints, without their tensors: which folders there are, the trainer's state, and the manifest that
// binds the files of a folder together.
#pragma once

#include <cstdint>
#include <string>

#include "evenspan/train/cursor.h"

namespace evenspan::train {

struct TrainerState {
  int64_t step = 0;
  Cursor cursor;
  uint64_t data_fingerprint = 0;
  // Initial weights and data order are functions of these and of the cursor: the whole random state.
  int64_t data_seed = 0;
  int64_t model_seed = 0;
  int64_t tokens_seen = 0;
  int64_t optimizer_updates = 0;
  std::string config;  // of the run that wrote it, as TOML
};

constexpr const char* kStateFile = "trainer_state.json";
constexpr const char* kOptimizerFile = "optimizer.safetensors";
constexpr const char* kManifestFile = "manifest.json";

// The text of kStateFile.
std::string to_json(const TrainerState& state);
// `file` names the text in errors. Throws invalid_argument for a text that is damaged, with the field, and unsupported
// for one of another version.
TrainerState parse_trainer_state(const std::string& text, const std::string& file);

// The text of kManifestFile: the name, size and checksum of every other file of the folder.
std::string make_manifest(const std::string& folder);
// Throws invalid_argument, with the file and what is wrong with it, unless the files that a checkpoint is loaded from
// are those of its manifest; names the newest older checkpoint beside it that is whole.
void require_whole(const std::string& folder);

// The newest complete checkpoint below `folder`; empty if there is none.
std::string latest_checkpoint(const std::string& folder);
// Removes all but the newest `keep` checkpoints. REQUIRES: keep > 0.
void remove_all_but(const std::string& folder, int64_t keep);

// Where save_checkpoint puts a step, and the step of such a path (-1 for any other).
std::string checkpoint_path(const std::string& folder, int64_t step);
int64_t checkpoint_step(const std::string& path);

}  // namespace evenspan::train
