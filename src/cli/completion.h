// What shells complete.
#pragma once

#include <string>
#include <vector>

#include "cli/options.h"

namespace evenspan::cli {

struct CompletedCommand {
  std::string name, summary;
  OptionList list;
};
// All commands that are here. Options of the programs beside evenspan are read from their --help.
std::vector<CompletedCommand> completed_commands();

// Scripts to be read by the shell.
std::string bash_completion(const std::vector<CompletedCommand>& commands);
std::string fish_completion(const std::vector<CompletedCommand>& commands);

}  // namespace evenspan::cli
