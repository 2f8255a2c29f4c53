// evenspan: native commands, and a starter for the programs beside it (evenspan-<command>) that need torch.
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <map>

#include "cli/command.h"
#include "evenspan/core/error.h"
#include "evenspan/core/nearest.h"
#include "evenspan/core/quoted.h"

namespace evenspan::cli {
namespace {

namespace fs = std::filesystem;

struct Command {
  const char* name;
  const char* summary;
  int (*function)(const Arguments&);  // null: a program of its own
};

constexpr Command kCommands[] = {
    {"plan", "plan a batch of packed documents over ranks", plan_command},
    {"verify", "prove a plan in text form, or say what is wrong with it", verify_command},
    {"simulate", "compare what a training step costs with each strategy, on a machine described by a profile",
     simulate_command},
    {"explain", "say why documents go where they go on a machine, and what limits the step", explain_command},
    {"strategies", "list the strategies and what they send", strategies_command},
    {"calibrate", "measure this machine and write a profile of it for simulate", nullptr},
    {"train", "train a language model on packed documents, ranks as threads", nullptr},
};

fs::path own_folder() { return fs::read_symlink("/proc/self/exe").parent_path(); }

bool is_program(const fs::path& path) { return fs::is_regular_file(path) && access(path.c_str(), X_OK) == 0; }

fs::path program_of(const std::string& command) { return own_folder() / ("evenspan-" + command); }

// Summaries by name: the table, and programs beside this one that it does not know.
std::map<std::string, std::string> all_commands() {
  std::map<std::string, std::string> all;
  std::error_code unreadable;
  for (const fs::directory_entry& entry : fs::directory_iterator(own_folder(), unreadable)) {
    const std::string name = entry.path().filename();
    constexpr std::string_view kPrefix = "evenspan-";
    if (name.starts_with(kPrefix) && is_program(entry.path())) all[name.substr(kPrefix.size())] = "see its --help";
  }
  for (const Command& command : kCommands) {
    const bool here = command.function != nullptr || all.count(command.name) > 0;
    all[command.name] = command.summary + std::string(here ? "" : " (not built here: needs PyTorch)");
  }
  return all;
}

void print_help() {
  std::cout << "Evenspan compiles the documents of a training batch into one program per rank.\n\n"
               "Usage: evenspan COMMAND [options]\n       evenspan --help | --version\n\nCommands:\n";
  for (const auto& [name, summary] : all_commands()) {
    std::cout << "  " << name << std::string(14 - std::min<size_t>(13, name.size()), ' ') << summary << "\n";
  }
  std::cout << "\nevenspan COMMAND --help describes a command. Exit code: 0 done, 1 a plan was refused, 2 bad input.\n";
}

// Does not return when the program starts.
int start_program(const std::string& command, const Arguments& arguments) {
  const std::string path = program_of(command);
  std::vector<char*> argv = {const_cast<char*>(path.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  execv(path.c_str(), argv.data());
  fail(ErrorKind::resource, "[start] ", quoted(path, 200), " does not start: ", std::strerror(errno));
}

[[noreturn]] void refuse_command(const std::string& name) {
  std::vector<std::string> names;
  std::string list;
  for (const auto& [known, summary] : all_commands()) {
    names.push_back(known);
    list += (list.empty() ? "" : ", ") + known;
    if (known == name) {
      fail(ErrorKind::unsupported, "[start] the command ", name, " is a program of its own, ",
           program_of(name).string(), ", which is not built here; `make build` builds it where PyTorch is");
    }
  }
  fail_invalid("[options] there is no command ", quoted(name), "; there are ", list, did_you_mean(name, names));
}

int dispatch(const Arguments& words) {
  const std::string name = words.empty() ? "" : words.front();
  if (name.empty()) {
    print_help();
    return kBadInput;
  }
  if (name == "--help" || name == "-h" || name == "help") {
    if (name == "help" && words.size() > 1) return dispatch({words[1], "--help"});
    print_help();
    return kDone;
  }
  if (name == "--version") {
    std::cout << "evenspan " << EVENSPAN_VERSION << "\n";
    return kDone;
  }
  const Arguments arguments(words.begin() + 1, words.end());
  for (const Command& command : kCommands) {
    if (command.function != nullptr && name == command.name) {
      return run("evenspan " + name, command.function, arguments);
    }
  }
  const bool safe = name.find('/') == std::string::npos;
  if (safe && is_program(program_of(name))) return start_program(name, arguments);
  refuse_command(name);
}

}  // namespace
}  // namespace evenspan::cli

int main(int argc, char** argv) {
  using namespace evenspan::cli;
  return run("evenspan", dispatch, Arguments(argv + std::min(argc, 1), argv + argc));
}
