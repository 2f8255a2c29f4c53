// The options of a command.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cli/command.h"

namespace CLI {
class App;
}

namespace evenspan::cli {

// The options of a command, for shells that complete them.
struct OptionList {
  struct Option {
    std::vector<std::string> names;  // "-r", "--ranks"; of an argument without a dash "FILE"
    std::string value;               // as the help has it; empty: none follows
    std::string help;                // its first line
  };
  std::vector<Option> options;
};

// Declared one by one, each with the variable that it sets; what the variable holds before is the default, which the
// help shows. A name is "--name" for an option or "NAME" for an argument without a dash; the common ones have a short
// form as well, the same in every command. Variables outlive the object.
// Whether the help says a variable's first value.
enum class Default {
  shown,
  hidden,  // it only means that the option was not given
};

class Options {
 public:
  // `name` is "evenspan plan"; `examples` stands at the end of the help; the options named in `required` must be given.
  Options(const std::string& name, const std::string& summary, const std::string& examples,
          std::vector<std::string> required);
  ~Options();
  Options(Options&&) noexcept;

  // `value` says in the help what a user writes after the name, `help` what it does.
  void text(const std::string& name, const std::string& value, const std::string& help, std::string* variable,
            Default said = Default::shown);
  void integer(const std::string& name, const std::string& help, int32_t* variable, Default said = Default::shown);
  void integer(const std::string& name, const std::string& help, int64_t* variable, Default said = Default::shown);
  void number(const std::string& name, const std::string& help, double* variable);
  // 1000, 64KiB, 8MiB, 2GiB
  void bytes(const std::string& name, const std::string& help, int64_t* variable, Default said = Default::shown);
  void flag(const std::string& name, const std::string& help, bool* variable);

  // Sets the variables. False when help was asked for and printed. Throws invalid_argument for arguments that break the
  // rules, with the nearest name for an option that does not exist.
  bool parse(const Arguments& arguments);

  bool given(const std::string& name) const;  // after parse()
  OptionList list() const;                    // all that are declared, --help too

 private:
  template <class F>
  void add(const std::string& name, const std::string& value, const std::string& help, const std::string& by_default,
           F&& set);
  void refuse_unknown() const;

  std::unique_ptr<CLI::App> app_;
  std::string name_;
  std::vector<std::string> required_;
};

}  // namespace evenspan::cli
