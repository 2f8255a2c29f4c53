// A small run on texts of all sizes, in float64.
#pragma once

#include <string>
#include <vector>

#include "evenspan/train/config.h"
#include "train/scratch.h"

namespace evenspan::testing {

// Texts of 0 to some hundred bytes.
inline void write_texts(const Scratch& s, const std::vector<int>& sizes) {
  for (size_t i = 0; i < sizes.size(); ++i) {
    std::string text;
    for (int j = 0; j < sizes[i]; ++j) text += static_cast<char>('a' + (j * j + 7 * static_cast<int>(i)) % 26);
    s.write("text/" + std::to_string(100 + i), text);
  }
}

inline const std::vector<int> kSizes = {0, 1, 2, 30, 200, 5, 47, 48, 90, 3, 11, 64, 20};

// Of the model whose config.json is `model`, into the folder `run`.
inline train::Config small_run(const Scratch& s, const std::string& model, const std::string& run) {
  s.write("config.json", model);
  train::Config c;
  c.data.path = s.path("text");
  c.data.max_document_tokens = 48;
  c.data.batch_tokens = 150;
  c.data.held_out_fraction = 0.1;
  c.model.config = s.path("config.json");
  c.model.dtype = "float64";
  c.optimizer.learning_rate = 1e-2;
  c.optimizer.warmup_steps = 2;
  c.parallel.threads_per_rank = 1;
  c.run.steps = 6;
  c.run.folder = s.path(run);
  c.run.keep_checkpoints = 0;
  return c;
}

}  // namespace evenspan::testing
