// Text under a model's own tokenizer. The trainer reads tokens; `python -m evenspan tokenize` makes them.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "evenspan/train/config.h"

namespace evenspan::train {

// What a run on text needs before it starts.
struct Tokenization {
  std::string tokenizer;           // folder
  std::string prefix;              // in run.folder, of the .bin and .idx with the tokens
  std::vector<std::string> words;  // for `python -m evenspan`, which leaves files alone that are up to date
};

// None where the data is tokens, or bytes are its tokens: data.tokenizer says so, or a model that begins from initial
// values has no tokenizer. Throws invalid_argument where it is unclear what the tokens of the text are, and where
// there is no run.folder to keep them.
std::optional<Tokenization> tokenization(const Config& config);

// The configuration with the tokens as its data. Throws invalid_argument, with the command, while they are missing.
DataConfig with_tokens(const Config& config);

// Files beside a model's weights that others need to use it: its tokenizer and how it generates. (name, contents); of
// the folders of data.tokenizer, model.weights and model.config, and none for a model of bytes.
std::vector<std::pair<std::string, std::string>> read_companions(const Config& config);

}  // namespace evenspan::train
