#include "cli/command_table.h"

#include <unistd.h>

#include <string_view>

namespace evenspan::cli {
namespace {

namespace fs = std::filesystem;

fs::path own_folder() { return fs::read_symlink("/proc/self/exe").parent_path(); }

}  // namespace

const std::vector<Command>& native_commands() {
  static const std::vector<Command> commands = {
      {"plan", "plan a batch of packed documents over ranks", plan_command, plan_options},
      {"verify", "prove a plan in text form, or say what is wrong with it", verify_command, verify_options},
      {"simulate", "compare what a training step costs with each strategy, on a machine described by a profile",
       simulate_command, simulate_options},
      {"explain", "say why documents go where they go on a machine, and what limits the step", explain_command,
       explain_options},
      {"batch", "plan global batches: which documents share a micro-batch, and on which ranks", batch_command,
       batch_options},
      {"strategies", "list the strategies and what they send", strategies_command, strategies_options},
      {"calibrate", "measure this machine and write a profile of it for simulate", nullptr, nullptr},
      {"train", "train a language model on packed documents, ranks as threads", nullptr, nullptr},
      {"completion", "print what makes bash, zsh or fish complete all of this", completion_command, completion_options},
      {"version", "print the version", version_command, version_options},
  };
  return commands;
}

std::map<std::string, std::string> all_commands() {
  std::map<std::string, std::string> all;
  std::error_code unreadable;
  for (const fs::directory_entry& entry : fs::directory_iterator(own_folder(), unreadable)) {
    const std::string name = entry.path().filename();
    constexpr std::string_view kPrefix = "evenspan-";
    if (name.starts_with(kPrefix) && is_program(entry.path())) all[name.substr(kPrefix.size())] = "see its --help";
  }
  for (const Command& command : native_commands()) {
    const bool here = command.function != nullptr || all.count(command.name) > 0;
    all[command.name] = command.summary + std::string(here ? "" : " (not built here: needs PyTorch)");
  }
  return all;
}

fs::path program_of(const std::string& command) { return own_folder() / ("evenspan-" + command); }

bool is_program(const fs::path& path) { return fs::is_regular_file(path) && access(path.c_str(), X_OK) == 0; }

}  // namespace evenspan::cli
