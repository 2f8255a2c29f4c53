// All commands of `evenspan`: the native ones, and the programs beside it (evenspan-<command>) that need torch.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/options.h"

namespace evenspan::cli {

OptionList plan_options();
OptionList verify_options();
OptionList simulate_options();
OptionList explain_options();
OptionList batch_options();
OptionList strategies_options();
OptionList completion_options();
OptionList version_options();

struct Command {
  const char* name;
  const char* summary;
  int (*function)(const Arguments&);  // null: a program of its own
  OptionList (*options)();            // null with it
};
const std::vector<Command>& native_commands();

// Summaries by name: the table, and programs beside this one that it does not know.
std::map<std::string, std::string> all_commands();

// Where the program of a command would be, and whether it is there.
std::filesystem::path program_of(const std::string& command);
bool is_program(const std::filesystem::path& path);

}  // namespace evenspan::cli
