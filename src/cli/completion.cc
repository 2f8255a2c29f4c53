#include "cli/completion.h"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <map>
#include <memory>
#include <sstream>

#include "cli/batch_options.h"
#include "cli/command_table.h"
#include "evenspan/batch/planner.h"
#include "evenspan/batch/published.h"
#include "evenspan/core/error.h"
#include "evenspan/machine/machine_files.h"
#include "evenspan/plan/linear.h"
#include "evenspan/simulate/planner.h"
#include "plan/strategy/strategy.h"

namespace evenspan::cli {
namespace {

std::string joined(const std::vector<std::string>& words, const char* between) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : between) + word;
  return text;
}

// The words that an option's value may be, where they are few.
std::vector<std::string> choices(const std::string& option) {
  std::vector<std::string> words;
  if (option == "--strategy") {
    words.emplace_back(simulate::kAuto);
    for (const plan::Strategy& strategy : plan::strategies()) words.emplace_back(strategy.name);
  } else if (option == "--profile") {
    for (const auto& [name, text] : machine::shipped_profiles()) words.push_back(name);
  } else if (option == "--transport") {
    for (const plan::TransportInfo& transport : plan::transports()) words.emplace_back(transport.name);
  } else if (option == "--planner") {
    for (const batch::Planner& planner : batch::planners()) words.emplace_back(planner.name);
  } else if (option == "--constants") {
    for (const batch::PublishedModel& model : batch::published_models()) words.push_back(constants_name(model));
  } else if (option == "--states") {
    words = {"optimizer", "all"};
  } else if (option == "--mask") {
    words = {"causal", "full", "window:", "prefix:"};
  } else if (option == "--dtype") {
    words = {"bf16", "f16", "f32", "f64", "bfloat16", "float16", "float32", "float64"};
  } else if (option == "SHELL") {
    words = {"bash", "zsh", "fish"};
  }
  return words;
}

bool takes_file(const OptionList::Option& option) {
  return option.names.back() == "FILE" || option.value.find("FILE") != std::string::npos ||
         option.value.find("OUT") != std::string::npos;
}

// "  -o,--out FILE   what it does", as programs print their options.
OptionList options_in_help(const std::string& help) {
  OptionList list;
  std::istringstream lines(help);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("  -")) continue;
    OptionList::Option option;
    std::istringstream words(line);
    for (std::string word; words >> word;) {
      if (!word.starts_with('-')) {
        // A value is in capitals; anything else is what the option does.
        if (std::none_of(word.begin(), word.end(), [](unsigned char c) { return std::islower(c); }))
          option.value = word;
        break;
      }
      std::istringstream names(word);
      for (std::string name; std::getline(names, name, ',');) option.names.push_back(name);
    }
    if (option.names.back().starts_with("--")) list.options.push_back(std::move(option));
  }
  return list;
}

std::string output_of(const std::string& command) {
  struct Close {
    void operator()(std::FILE* pipe) const { pclose(pipe); }
  };
  const std::unique_ptr<std::FILE, Close> pipe(popen(command.c_str(), "r"));
  std::string text;
  char buffer[1 << 12];
  for (size_t n; pipe && (n = std::fread(buffer, 1, sizeof(buffer), pipe.get())) > 0;) text.append(buffer, n);
  return text;
}

std::string in_single_quotes(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

}  // namespace

std::vector<CompletedCommand> completed_commands() {
  std::vector<CompletedCommand> commands;
  std::map<std::string, OptionList (*)()> native;
  for (const Command& command : native_commands()) native[command.name] = command.options;
  for (const auto& [name, summary] : all_commands()) {
    const auto found = native.find(name);
    if (found != native.end() && found->second != nullptr) {
      commands.push_back({name, summary, found->second()});
    } else if (is_program(program_of(name))) {
      commands.push_back(
          {name, summary, options_in_help(output_of(in_single_quotes(program_of(name).string()) + " --help"))});
    }
  }
  return commands;
}

std::string bash_completion(const std::vector<CompletedCommand>& commands) {
  std::vector<std::string> names;
  std::string cases;
  std::map<std::string, std::string> values;  // what completes the word after an option
  for (const CompletedCommand& command : commands) {
    names.push_back(command.name);
    std::vector<std::string> words;
    bool files = false;
    for (const OptionList::Option& option : command.list.options) {
      const std::vector<std::string> known = choices(option.names.back());
      const std::string completes =
          join_text(known.empty() ? "" : "-W '" + joined(known, " ") + "' ", takes_file(option) ? "-f " : "");
      if (!option.names.front().starts_with('-')) {
        words.insert(words.end(), known.begin(), known.end());
        files = files || takes_file(option);
        continue;
      }
      words.insert(words.end(), option.names.begin(), option.names.end());
      if (!option.value.empty()) values[joined(option.names, "|")] = completes;
    }
    cases += join_text("    ", command.name, ") COMPREPLY=($(compgen -W '", joined(words, " "), "' ",
                       files ? "-f " : "", "-- \"$word\")) ;;\n");
  }
  std::string after;
  for (const auto& [option, completes] : values) {
    const std::string reply = completes.empty() ? "()" : join_text("($(compgen ", completes, "-- \"$word\"))");
    after += join_text("    ", option, ") COMPREPLY=", reply, "; return ;;\n");
  }
  return join_text(
      "_evenspan() {\n"
      "  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}\n"
      "  COMPREPLY=()\n"
      "  if ((COMP_CWORD == 1)); then\n"
      "    COMPREPLY=($(compgen -W '",
      joined(names, " "),
      " --help --version' -- \"$word\"))\n"
      "    return\n"
      "  fi\n"
      "  case $before in\n",
      after,
      "  esac\n"
      "  case ${COMP_WORDS[1]} in\n",
      cases,
      "  esac\n"
      "}\n"
      "complete -o filenames -F _evenspan evenspan\n");
}

std::string fish_completion(const std::vector<CompletedCommand>& commands) {
  std::string text = "complete -c evenspan -f\n";
  for (const CompletedCommand& command : commands) {
    text += join_text("complete -c evenspan -n __fish_use_subcommand -a ", command.name, " -d ",
                      in_single_quotes(command.summary), "\n");
    for (const OptionList::Option& option : command.list.options) {
      text += join_text("complete -c evenspan -n '__fish_seen_subcommand_from ", command.name, "'");
      for (const std::string& name : option.names) {
        if (name.starts_with("--")) {
          text += " -l " + name.substr(2);
        } else if (name.starts_with('-')) {
          text += " -s " + name.substr(1);
        }
      }
      if (!option.value.empty()) text += " -r";
      if (takes_file(option)) text += " -F";
      const std::vector<std::string> known = choices(option.names.back());
      if (!known.empty()) text += " -a " + in_single_quotes(joined(known, " "));
      if (!option.help.empty()) text += " -d " + in_single_quotes(option.help);
      text += "\n";
    }
  }
  return text;
}

}  // namespace evenspan::cli
