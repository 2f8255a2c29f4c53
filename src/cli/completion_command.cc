// evenspan completion: what makes a shell complete commands, options and their values.
#include <iostream>

#include "cli/command_table.h"
#include "cli/completion.h"
#include "evenspan/core/error.h"
#include "evenspan/core/quoted.h"

namespace evenspan::cli {
namespace {

constexpr const char* kCompletionSummary =
    "Prints what makes a shell complete the commands of evenspan, their options and values.";

constexpr const char* kCompletionExamples = R"(Examples:
  source <(evenspan completion bash)           # in ~/.bashrc
  source <(evenspan completion zsh)            # in ~/.zshrc, after compinit
  evenspan completion fish | source            # in ~/.config/fish/config.fish
Exit code: 0 printed, 2 bad arguments.)";

Options declared(std::string* shell) {
  Options options("evenspan completion", kCompletionSummary, kCompletionExamples, {"SHELL"});
  options.text("SHELL", "", "bash, zsh or fish", shell);
  return options;
}

}  // namespace

OptionList completion_options() {
  std::string shell;
  return declared(&shell).list();
}

int completion_command(const Arguments& words) {
  std::string shell;
  Options options = declared(&shell);
  if (!options.parse(words)) return kDone;
  if (shell == "fish") {
    std::cout << fish_completion(completed_commands());
  } else if (shell == "bash" || shell == "zsh") {
    // zsh runs bash's functions.
    if (shell == "zsh") std::cout << "autoload -U +X bashcompinit && bashcompinit\n";
    std::cout << bash_completion(completed_commands());
  } else {
    fail_invalid("[options] there is no completion for the shell ", quoted(shell), "; give bash, zsh or fish");
  }
  return kDone;
}

}  // namespace evenspan::cli
