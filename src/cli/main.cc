// evenspan: native commands, and a starter for the programs beside it (evenspan-<command>) that need torch.
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <iostream>

#include "cli/command_table.h"
#include "evenspan/core/error.h"
#include "evenspan/core/nearest.h"
#include "evenspan/core/quoted.h"

namespace evenspan::cli {
namespace {

void print_help() {
  std::cout << "Evenspan compiles the documents of a training batch into one program per rank.\n\n"
               "Usage: evenspan COMMAND [options]\n       evenspan --help | --version\n\nCommands:\n";
  for (const auto& [name, summary] : all_commands()) {
    std::cout << "  " << name << std::string(14 - std::min<size_t>(13, name.size()), ' ') << summary << "\n";
  }
  std::cout << "\nevenspan COMMAND --help describes a command. Exit code: 0 done, 1 the answer is no\n"
               "(a plan is not proven, runs differ), 2 bad input, 3 a bug in Evenspan.\n";
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
  const bool is_of_train = name == "compare" || name == "probe";
  fail_invalid("[options] there is no command ", quoted(name), "; there are ", list,
               is_of_train ? "; did you mean 'train " + name + "'?" : did_you_mean(name, names));
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
  if (name == "--version" || name == "-V") return version_command({});
  const Arguments arguments(words.begin() + 1, words.end());
  for (const Command& command : native_commands()) {
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
