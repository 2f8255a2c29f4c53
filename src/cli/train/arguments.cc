#include <algorithm>
#include <charconv>

#include "cli/train/commands.h"
#include "evenspan/core/error.h"
#include "evenspan/core/nearest.h"

namespace evenspan::cli {

Arguments parse_arguments(const std::vector<std::string>& arguments) {
  Arguments out;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "--help" || argument == "-h") {
      out.help = true;
    } else if (!argument.starts_with("--")) {
      out.positional.push_back(argument);
    } else if (const size_t sign = argument.find('='); sign != std::string::npos) {
      out.options.emplace_back(argument.substr(2, sign - 2), argument.substr(sign + 1));
    } else if (i + 1 < arguments.size()) {
      out.options.emplace_back(argument.substr(2), arguments[i + 1]);
      ++i;
    } else {
      fail_invalid("[command line] ", argument, " needs a value after it");
    }
  }
  return out;
}

void require_known(const Arguments& arguments, const std::vector<std::string>& known) {
  for (const auto& [name, value] : arguments.options) {
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      fail_invalid("[command line] there is no option --", name, did_you_mean(name, known));
    }
  }
}

int64_t parse_integer(const std::string& name, const std::string& text, int64_t least) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < least) {
    fail_invalid("[command line] --", name, " must be a whole number of at least ", least, ", it is \"", text, "\"");
  }
  return value;
}

}  // namespace evenspan::cli
