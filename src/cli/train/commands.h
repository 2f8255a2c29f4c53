// The commands of evenspan-train. Each takes its arguments without its name and returns the exit status; what the user
// or a file got wrong is an evenspan::Error.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "evenspan/train/tokenization.h"

namespace evenspan::cli {

int train(const Arguments& arguments);
int compare(const Arguments& arguments);
int probe(const Arguments& arguments);

// Makes the tokens that the run needs and that are missing or out of date. Throws resource where they cannot be made.
void make_tokens(const train::Config& config);

// Arguments taken apart: `--name value`, `--name=value`, and the rest. Every option takes a value, but --help.
struct Parsed {
  std::vector<std::string> positional;
  std::vector<std::pair<std::string, std::string>> options;  // without the dashes
  bool help = false;
};
Parsed parse_arguments(const Arguments& arguments);

// Throws invalid_argument, with the nearest name, for an option that is not among `known`.
void require_known(const Parsed& parsed, const std::vector<std::string>& known);

// A number of ranks, at least 1; `text` is the value of --ranks.
int32_t parse_ranks(const std::string& text);

}  // namespace evenspan::cli
