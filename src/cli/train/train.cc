#include <cstdio>

#include "cli/train/commands.h"
#include "evenspan/comm/communicator.h"
#include "evenspan/core/error.h"
#include "evenspan/core/nearest.h"
#include "evenspan/train/config.h"
#include "evenspan/train/stop_signals.h"
#include "evenspan/train/trainer.h"

namespace evenspan::cli {
namespace {

constexpr const char* kTrainUsage = R"(evenspan train CONFIG [--ranks N] [--KEY VALUE ...]
    Trains a model. The ranks are threads of this process; python -m evenspan train runs a process a rank.
evenspan train compare RUN REFERENCE [REPACKED ...] [--page report.html]
    Says whether two finished runs are equal, as a table and as a page.
evenspan train probe MODEL --tokens IN.safetensors --out OUT.safetensors [--ranks N]
    Writes logits, loss and all gradients of one batch.

Examples:
  evenspan train run.toml --ranks 4
  evenspan train run.toml --ranks 4 --run.resume latest --run.steps 2000
  evenspan train run.toml --model.config BASE --model.weights BASE --data.path texts.jsonl

  --ranks N                                     default 1
      ranks of the run
  --help
      this text

)";

}  // namespace

int train(const Arguments& arguments) {
  Parsed parsed = parse_arguments(arguments);
  if (parsed.help) {
    std::printf("%s%s", kTrainUsage, train::describe_training().c_str());
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
  train::check(config, ranks);
  make_tokens(config);
  const train::StopSignals signals(/*speaks=*/true);
  int stopped_by = 0;
  comm::run_threads(ranks, [&](const comm::Communicator& communicator) {
    const train::Summary own = train::train(config, communicator, signals.stop());
    if (communicator.rank() == 0) stopped_by = own.stopped_by;
  });
  return stopped_by == 0 ? kDone : kSignal + stopped_by;
}

}  // namespace evenspan::cli
