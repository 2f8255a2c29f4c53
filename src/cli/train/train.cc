#include <cmath>
#include <cstdio>

#include "cli/train/commands.h"
#include "evenspan/comm/communicator.h"
#include "evenspan/core/error.h"
#include "evenspan/core/nearest.h"
#include "evenspan/train/config.h"
#include "evenspan/train/trainer.h"

namespace evenspan::cli {
namespace {

constexpr const char* kUsage = R"(evenspan-train CONFIG [--ranks N] [--KEY VALUE ...]
    Trains a model. The ranks are threads of this process; python -m evenspan train runs a process a rank.
evenspan-train compare RUN REFERENCE [REPACKED ...] [--page report.html]
    Says whether two finished runs are equal, as a table and as a page.
evenspan-train probe MODEL --tokens IN.safetensors --out OUT.safetensors [--ranks N]
    Writes logits, loss and all gradients of one batch.

CONFIG is a TOML file with the sections below. Every key can be overridden: --optimizer.learning_rate 1e-3.
Lists are given as a,b on the command line. Relative paths start at the file's folder, or, when they come from the
command line, at the working folder.

  --ranks N                                     default 1
      ranks of the run
  --help
      this text

Keys:
)";

}  // namespace

int train(const Arguments& arguments) {
  Parsed parsed = parse_arguments(arguments);
  if (parsed.help) {
    std::printf("%s%s", kUsage, evenspan::train::describe_keys().c_str());
    return kDone;
  }
  if (parsed.positional.size() != 1) {
    fail_invalid("[command line] one CONFIG file is needed, ", parsed.positional.size(), " were given; see --help");
  }
  int32_t ranks = 1;
  train::Overrides overrides;
  for (const auto& [name, value] : parsed.options) {
    if (name == "ranks") {
      ranks = parse_ranks(value);
    } else if (!nearest_name(name, {"ranks"}).empty()) {
      fail_invalid("[command line] there is no option --", name, "; did you mean --ranks?");
    } else {
      overrides.emplace_back(name, value);
    }
  }
  const train::Config config = train::load_config(parsed.positional[0], overrides);
  train::Summary summary;
  comm::run_threads(ranks, [&](const comm::Communicator& communicator) {
    const train::Summary own = train::train(config, communicator);
    if (communicator.rank() == 0) summary = own;
  });
  std::printf("done: %lld steps, loss %.4f -> %.4f", static_cast<long long>(summary.steps), summary.first_loss,
              summary.last_loss);
  if (!std::isnan(summary.held_out_loss)) std::printf(", held-out loss %.4f", summary.held_out_loss);
  std::printf(", %lld tokens in %.1f s\n", static_cast<long long>(summary.tokens), summary.seconds);
  if (!summary.checkpoint.empty()) std::printf("checkpoint: %s\n", summary.checkpoint.c_str());
  return kDone;
}

}  // namespace evenspan::cli
