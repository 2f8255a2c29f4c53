#include "evenspan/calibrate/command.h"

#include <ATen/Parallel.h>
#include <c10/core/Device.h>

#include <charconv>
#include <functional>
#include <iomanip>
#include <limits>
#include <sstream>

#include "evenspan/core/error.h"
#include "evenspan/core/nearest.h"
#include "evenspan/core/output_file.h"
#include "evenspan/core/progress.h"
#include "evenspan/core/quoted.h"

namespace evenspan::calibrate {
namespace {

template <class Number>
Number parse_number(const std::string& name, const std::string& text, Number least, const char* what) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value >= least) ||
      value > std::numeric_limits<Number>::max()) {
    fail_invalid("[options] ", name, " is ", quoted(text), "; give ", what, " of at least ", least);
  }
  return value;
}

int32_t parse_count(const std::string& name, const std::string& text) {
  return parse_number<int32_t>(name, text, 1, "a whole number");
}

std::string parse_device(const std::string& text) {
  try {
    return c10::Device(text).str();
  } catch (const c10::Error&) {
    fail_invalid("[options] --device is ", quoted(text), "; give a device as torch writes it, cpu or cuda:0");
  }
}

struct Option {
  const char* names;  // "-o,--out" or "--name"
  const char* value;  // empty: none follows
  const char* help;
  std::function<void(const std::string& text, Command* command)> read;
};

const std::vector<Option>& options() {
  static const std::vector<Option> all = {
      {"-o,--out", "FILE", "The profile, as JSON for `evenspan simulate --profile`; - is standard output; needed",
       [](const std::string& text, Command* c) { c->out = text; }},
      {"--name", "TEXT", "Of the profile, default calibrated",
       [](const std::string& text, Command* c) { c->options.name = text; }},
      {"-r,--ranks", "N",
       "Ranks, as threads of this process, at least 2, default 2; torchrun says it where they are processes",
       [](const std::string& text, Command* c) { c->ranks = parse_count("--ranks", text); }},
      {"--threads", "N", "Threads of a rank, default 1",
       [](const std::string& text, Command* c) { c->threads = parse_count("--threads", text); }},
      {"--heads", "N", "Query heads, default 8",
       [](const std::string& text, Command* c) { c->options.shape.num_heads = parse_count("--heads", text); }},
      {"--kv-heads", "N", "Key and value heads, default 2",
       [](const std::string& text, Command* c) { c->options.shape.num_kv_heads = parse_count("--kv-heads", text); }},
      {"--head-dim", "N", "Dimension of a head, default 64",
       [](const std::string& text, Command* c) { c->options.shape.head_dim = parse_count("--head-dim", text); }},
      {"-d,--dtype", "TYPE", "bf16, f16, f32 or f64, or as torch writes them (float32), default f32",
       [](const std::string& text, Command* c) { c->options.shape.element = plan::parse_element_type(text); }},
      {"--longest", "TOKENS", "Most queries and keys of a measured kernel, default 4096",
       [](const std::string& text, Command* c) {
         c->options.longest = parse_number<int64_t>("--longest", text, 1, "a whole number");
       }},
      {"--seconds", "S", "Rounds of measurements begin until then, at least two are made, default 60",
       [](const std::string& text, Command* c) {
         c->options.seconds = parse_number<double>("--seconds", text, 0, "a number");
       }},
      {"--ranks-per-node", "N", "Ranks of a node, default all, or those that torchrun started on it",
       [](const std::string& text, Command* c) { c->options.ranks_per_node = parse_count("--ranks-per-node", text); }},
      {"--device", "DEVICE", "That runs the kernels, default cpu",
       [](const std::string& text, Command* c) { c->options.device = parse_device(text); }},
      {"-q,--quiet", "", "Say nothing of progress on standard error",
       [](const std::string&, Command* c) { c->quiet = true; }},
  };
  return all;
}

// "--out" of "-o,--out".
std::string long_name(const Option& option) {
  const std::string names = option.names;
  return names.substr(names.find(',') + 1);
}

const Option& find_option(const std::string& name) {
  std::vector<std::string> names;
  for (const Option& option : options()) {
    if (name == long_name(option) || name + "," + long_name(option) == option.names) return option;
    names.push_back(long_name(option));
  }
  fail_invalid("[options] there is no option ", quoted(name), "; see --help", did_you_mean(name, names));
}

}  // namespace

Command parse_command(const std::vector<std::string>& words) {
  Command command;
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--help" || words[i] == "-h") {
      command.help = true;
      return command;
    }
    const size_t sign = words[i].find('=');
    const Option& option = find_option(words[i].substr(0, sign));
    if (*option.value == '\0') {
      if (sign != std::string::npos) fail_invalid("[options] ", long_name(option), " takes no value; see --help");
      option.read("", &command);
      continue;
    }
    if (sign == std::string::npos && i + 1 == words.size()) {
      fail_invalid("[options] ", long_name(option), " needs a value, ", option.value, "; see --help");
    }
    option.read(sign == std::string::npos ? words[++i] : words[i].substr(sign + 1), &command);
  }
  if (command.out.empty()) fail_invalid("[options] --out is missing; name the file of the profile, or -");
  return command;
}

std::string describe_options() {
  std::ostringstream out;
  for (const Option& option : options()) {
    out << "  " << std::left << std::setw(20) << join_text(option.names, " ", option.value) << " " << option.help
        << "\n";
  }
  return out.str();
}

std::string run_command(const Command& command, const comm::Communicator& communicator) {
  at::set_num_threads(command.threads);
  const bool leads = communicator.rank() == 0;
  if (leads) check_outputs({{"--out", command.out}});
  const auto measured = [&] {
    Progress progress("evenspan calibrate", leads && !command.quiet ? standard_error_sink() : silent_sink());
    return calibrate(command.options, communicator, WorkPart([&progress](double done) { progress.at(done, 1); }));
  };
  const Calibration calibration = measured();
  if (!leads) return {};
  write_outputs({{command.out, to_json(calibration)}});
  return join_text("profile: ", command.out, " (", calibration.about, ")\n");
}

}  // namespace evenspan::calibrate
