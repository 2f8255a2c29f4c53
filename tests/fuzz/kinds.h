// The kinds of input. Each is read as the programs read it and then used within a small budget.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace evenspan::fuzz {

struct Kind {
  const char* name;  // of its folder in the corpus
  std::vector<std::string_view> words;
  // Takes the bytes or refuses them with evenspan::Error. `folder` is its own, for files.
  void (*take)(const std::string& bytes, const std::string& folder);
};

Kind plan_text();
Kind lengths();
Kind profile();
Kind topology();
Kind model();
Kind config();
Kind megatron_index();
Kind jsonl();
Kind safetensors();
Kind trainer_state();
Kind metrics();

void write(const std::string& path, const std::string& bytes);

}  // namespace evenspan::fuzz
