// The commands of evenspan-train. Each takes its arguments without its name and returns the exit status; what the user
// or a file got wrong is an evenspan::Error.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace evenspan::cli {

int train(const std::vector<std::string>& arguments);
int compare(const std::vector<std::string>& arguments);
int probe(const std::vector<std::string>& arguments);

// Arguments taken apart: `--name value`, `--name=value`, and the rest. Every option takes a value, but --help.
struct Arguments {
  std::vector<std::string> positional;
  std::vector<std::pair<std::string, std::string>> options;  // without the dashes
  bool help = false;
};
Arguments parse_arguments(const std::vector<std::string>& arguments);

// Throws invalid_argument, with the nearest name, for an option that is not among `known`.
void require_known(const Arguments& arguments, const std::vector<std::string>& known);

// A whole number of at least `least`; `name` is for the message.
int64_t parse_integer(const std::string& name, const std::string& text, int64_t least);

}  // namespace evenspan::cli
