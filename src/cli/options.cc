#include "cli/options.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <charconv>
#include <iostream>
#include <limits>
#include <string_view>

#include "cli/table.h"
#include "evenspan/core/bytes.h"
#include "evenspan/core/error.h"
#include "evenspan/core/nearest.h"
#include "evenspan/core/quoted.h"

namespace evenspan::cli {
namespace {

constexpr size_t kHelpColumn = 26;

// Broken into lines that fit beside the names of the options.
std::string beside_names(const std::string& text) { return wrapped(text, 120 - kHelpColumn); }

// The short forms of all commands.
constexpr std::pair<std::string_view, std::string_view> kShort[] = {
    {"--lengths", "-l"}, {"--ranks", "-r"}, {"--strategy", "-s"}, {"--topology", "-t"},
    {"--profile", "-p"}, {"--model", "-m"}, {"--dtype", "-d"},    {"--quiet", "-q"},
};

// "-r,--ranks", as CLI11 wants it.
std::string with_short(const std::string& name) {
  for (const auto& [full, brief] : kShort) {
    if (name == full) return join_text(brief, ",", name);
  }
  return name;
}

template <class T>
T parse_number(const std::string& name, const std::string& text, const char* what) {
  T value{};
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, value);
  if (error == std::errc::result_out_of_range) {
    fail_invalid("[options] ", name, " is ", quoted(text), ", beyond ", std::numeric_limits<T>::max());
  }
  if (error != std::errc() || at != end) fail_invalid("[options] ", name, " is ", quoted(text), "; give ", what);
  return value;
}

}  // namespace

Options::Options(const std::string& name, const std::string& summary, const std::string& examples,
                 std::vector<std::string> required)
    : app_(std::make_unique<CLI::App>(summary, name)), name_(name), required_(std::move(required)) {
  app_->footer(examples + "\n");
  app_->allow_extras();  // refuse_unknown() says more about them
  app_->set_help_flag("-h,--help", "Print this page");
  app_->get_formatter()->column_width(kHelpColumn);
}

Options::~Options() = default;
Options::Options(Options&&) noexcept = default;

template <class F>
void Options::add(const std::string& name, const std::string& value, const std::string& help,
                  const std::string& by_default, F&& set) {
  std::string note = by_default.empty() ? "" : " (default " + by_default + ")";
  if (std::find(required_.begin(), required_.end(), name) != required_.end()) note = " (required)";
  app_->add_option_function<std::string>(with_short(name), std::forward<F>(set), beside_names(help + note))
      ->type_name(value);
}

void Options::text(const std::string& name, const std::string& value, const std::string& help, std::string* variable,
                   Default said) {
  add(name, value, help, said == Default::shown ? *variable : "",
      [variable](const std::string& text) { *variable = text; });
}

void Options::integer(const std::string& name, const std::string& help, int32_t* variable, Default said) {
  add(name, "N", help, said == Default::shown ? join_text(*variable) : "",
      [=](const std::string& text) { *variable = parse_number<int32_t>(name, text, "a whole number"); });
}

void Options::integer(const std::string& name, const std::string& help, int64_t* variable, Default said) {
  add(name, "N", help, said == Default::shown ? join_text(*variable) : "",
      [=](const std::string& text) { *variable = parse_number<int64_t>(name, text, "a whole number"); });
}

void Options::number(const std::string& name, const std::string& help, double* variable) {
  add(name, "X", help, join_text(*variable),
      [=](const std::string& text) { *variable = parse_number<double>(name, text, "a number"); });
}

void Options::bytes(const std::string& name, const std::string& help, int64_t* variable, Default said) {
  add(name, "BYTES", help, said == Default::shown ? join_text(*variable) : "",
      [=](const std::string& text) { *variable = parse_bytes("[options] " + name, text); });
}

void Options::flag(const std::string& name, const std::string& help, bool* variable) {
  app_->add_flag(with_short(name), *variable, beside_names(help));
}

bool Options::parse(const Arguments& arguments) {
  try {
    app_->parse(Arguments(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::CallForHelp&) {
    std::cout << app_->help();
    return false;
  } catch (const CLI::ParseError& error) {
    fail_invalid("[options] ", error.what(), "; see ", name_, " --help");
  }
  refuse_unknown();
  for (const std::string& name : required_) {
    if (!given(name)) fail_invalid("[options] ", name, " is missing; see ", name_, " --help");
  }
  return true;
}

bool Options::given(const std::string& name) const { return app_->get_option(name)->count() > 0; }

OptionList Options::list() const {
  OptionList list;
  for (const CLI::Option* option : app_->get_options()) {
    OptionList::Option& out = list.options.emplace_back();
    for (const std::string& name : option->get_snames()) out.names.push_back("-" + name);
    for (const std::string& name : option->get_lnames()) out.names.push_back("--" + name);
    if (out.names.empty()) out.names.push_back(option->get_name());
    if (option->get_items_expected_max() > 0) out.value = option->get_type_name();
    const std::string help = option->get_description();
    out.help = help.substr(0, help.find('\n'));
  }
  return list;
}

void Options::refuse_unknown() const {
  if (app_->remaining().empty()) return;
  const std::string unknown = app_->remaining().front();
  if (!unknown.starts_with('-')) {
    fail_invalid("[options] the argument ", quoted(unknown), " is one too many; see ", name_, " --help");
  }
  std::vector<std::string> names;
  for (const CLI::Option* option : app_->get_options()) {
    if (!option->get_lnames().empty()) names.push_back("--" + option->get_lnames().front());
  }
  const std::string name = unknown.substr(0, unknown.find('='));
  fail_invalid("[options] there is no option ", quoted(name), "; see ", name_, " --help", did_you_mean(name, names));
}

}  // namespace evenspan::cli
