#include <algorithm>
#include <charconv>
#include <limits>

#include "cli/train/commands.h"
#include "evenspan/core/error.h"
#include "evenspan/core/nearest.h"
#include "evenspan/core/quoted.h"

namespace evenspan::cli {

Parsed parse_arguments(const Arguments& arguments) {
  Parsed out;
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

void require_known(const Parsed& parsed, const std::vector<std::string>& known) {
  for (const auto& [name, value] : parsed.options) {
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      fail_invalid("[command line] there is no option --", name, did_you_mean(name, known));
    }
  }
}

int32_t parse_ranks(const std::string& text) {
  int32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 1) {
    fail_invalid("[command line] --ranks must be a whole number from 1 to ", std::numeric_limits<int32_t>::max(),
                 ", it is ", quoted(text));
  }
  return value;
}

}  // namespace evenspan::cli
