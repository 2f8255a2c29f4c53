// evenspan simulate: what a training step would cost with each strategy, without the machine.
#include <algorithm>
#include <iostream>
#include <optional>
#include <sstream>

#include "cli/command_table.h"
#include "cli/plan_page.h"
#include "cli/scenario_options.h"
#include "cli/simulate_output.h"
#include "cli/table.h"
#include "cli/watch.h"
#include "evenspan/core/error.h"
#include "evenspan/simulate/bound.h"
#include "evenspan/simulate/formula.h"
#include "evenspan/simulate/planner.h"
#include "plan/strategy/strategy.h"

namespace evenspan::cli {
namespace {

constexpr const char* kSimulateSummary =
    "Simulates a training step on a machine that need not be there, and compares strategies.";

constexpr const char* kSimulateExamples = R"(Examples:
  evenspan simulate --lengths lengths.txt --ranks 64 --strategy ring,zigzag,hierarchical
  evenspan simulate --lengths lengths.txt --ranks 16 --profile a100-40gb-ib --model config.json --trace trace.json
  evenspan simulate --lengths lengths.txt --topology cluster.json --profile mine.json --json -

The programs of all ranks run as discrete events on the profile's kernels, memory, links and network cards; beyond 64
ranks uniform strategies are modelled by a formula. docs/simulator.md says what is exact. The default model is Llama 3
8B. A trace is read by Perfetto (ui.perfetto.dev) and chrome://tracing. Files are written whole or not at all.
Exit code: 0 simulated, 2 bad arguments or input.)";

using simulate::kAuto;

struct SimulateArguments {
  RequestArguments request;
  ScenarioArguments scenario;
  std::string strategies = std::string(kAuto) + "," + plan::kDefaultStrategy + ",sequence_aware,hierarchical";
  std::string json, trace, html;
};

void declare(Options* options, SimulateArguments* arguments) {
  declare_batch(options, &arguments->request);
  declare_scenario(options, &arguments->request, &arguments->scenario);
  options->text("--strategy", "NAME,...",
                "Some of " + strategy_names() +
                    ", with commas; evenspan strategies describes them; auto takes the one with the shortest step",
                &arguments->strategies);
  declare_attention(options, &arguments->request);
  declare_knobs(options, &arguments->request);
  options->text("--json", "OUT", "Write all results as JSON; - is standard output", &arguments->json);
  options->text("--html", "OUT", "Write a page with pictures: placement, timeline, memory, bytes; - is standard output",
                &arguments->html);
  options->text("--trace", "OUT", "Write one layer's attention as trace events; - is standard output",
                &arguments->trace);
  declare_quiet(options, &arguments->request);
}

std::vector<std::string> split_strategies(const std::string& text) {
  std::vector<std::string> names;
  std::istringstream in(text + ",");
  for (std::string name; std::getline(in, name, ',');) {
    if (name != kAuto) plan::find_strategy(name);
    if (std::find(names.begin(), names.end(), name) != names.end()) {
      fail_invalid("[options] --strategy names ", name, " twice; name each strategy once");
    }
    names.push_back(name);
  }
  return names;
}

[[noreturn]] void refuse_trace(const std::string& strategy, int32_t num_ranks) {
  fail_invalid("[options] --trace needs programs, and ", strategy, " on ", num_ranks,
               " ranks is predicted by a formula; leave the strategy out, or use at most ", simulate::kMostUniformRanks,
               " ranks");
}

[[noreturn]] void refuse_page(const std::string& strategies, int32_t num_ranks) {
  fail_invalid("[options] --html needs a plan, and ", strategies, " on ", num_ranks,
               " ranks is predicted by a formula; add ", plan::kDefaultStrategy);
}

// Before anything is simulated: whether pictures are wanted of strategies that write no programs on so many ranks.
void check_programs(const SimulateArguments& arguments, const std::vector<std::string>& strategies, int32_t num_ranks) {
  const auto by_formula = [num_ranks](const std::string& strategy) {
    return num_ranks > simulate::kMostUniformRanks && strategy != kAuto && simulate::has_formula(strategy);
  };
  const auto first = std::find_if(strategies.begin(), strategies.end(), by_formula);
  if (!arguments.trace.empty() && first != strategies.end()) refuse_trace(*first, num_ranks);
  if (!arguments.html.empty() && std::all_of(strategies.begin(), strategies.end(), by_formula)) {
    refuse_page(arguments.strategies, num_ranks);
  }
}

Options declared(SimulateArguments* arguments) {
  Options options("evenspan simulate", kSimulateSummary, kSimulateExamples, {"--lengths"});
  declare(&options, arguments);
  return options;
}

}  // namespace

OptionList simulate_options() {
  SimulateArguments arguments;
  return declared(&arguments).list();
}

int simulate_command(const Arguments& words) {
  SimulateArguments arguments;
  Options options = declared(&arguments);
  if (!options.parse(words)) return kDone;
  check_scenario(options, "evenspan simulate");
  check_files(arguments.request, arguments.scenario,
              {{"--json", arguments.json}, {"--html", arguments.html}, {"--trace", arguments.trace}});
  const std::vector<std::string> strategies = split_strategies(arguments.strategies);
  check_idle_knobs(options, strategies, "evenspan simulate");
  const plan::Mask mask = plan::parse_mask(arguments.request.mask);
  const simulate::Scenario scenario = read_scenario(options, arguments.scenario, &arguments.request);
  check_programs(arguments, strategies, scenario.machine.topology.num_ranks);
  plan::Request request = read_request_for(arguments.request, scenario);

  Watch watch("evenspan simulate", arguments.request.quiet);
  const bool draws = !arguments.trace.empty() || !arguments.html.empty();
  const auto timeline = draws ? simulate::Timeline::record : simulate::Timeline::skip;
  std::vector<simulate::Prediction> predictions;
  std::vector<PagePlan> plans;
  std::optional<simulate::Choice> choice;
  for (size_t i = 0; i < strategies.size(); ++i) {
    const std::string& strategy = strategies[i];
    const WorkPart part = watch.work().part(static_cast<int64_t>(i), static_cast<int64_t>(strategies.size()));
    simulate::PlannedPrediction planned;
    if (strategy == kAuto) {
      choice = simulate::choose_within_budget(request, scenario, timeline, part);
      planned = {choice->prediction, choice->plan};
      planned.prediction.strategy = kAuto;
    } else {
      request.options.strategy = strategy;
      planned = simulate::plan_and_predict(request, scenario, timeline, part);
    }
    predictions.push_back(planned.prediction);
    if (planned.plan && !arguments.html.empty()) plans.push_back({strategy, planned.plan, planned.prediction});
  }
  for (const simulate::Prediction& prediction : predictions) {  // what auto chose is not known before
    if (prediction.by_formula && !arguments.trace.empty()) refuse_trace(prediction.strategy, request.num_ranks());
  }
  if (plans.empty() && !arguments.html.empty()) refuse_page(arguments.strategies, request.num_ranks());
  const SimulationTitle title{request.documents.size(), request.documents.total_tokens(), to_string(mask),
                              simulate::step_lower_bound(request, scenario)};
  watch.stop();
  const bool to_stdout = arguments.json == "-" || arguments.trace == "-" || arguments.html == "-";
  (to_stdout ? std::cerr : std::cout) << simulation_table(scenario, title, predictions, choice ? &*choice : nullptr);
  std::vector<std::pair<std::string, std::string>> outputs;
  if (!arguments.json.empty())
    outputs.emplace_back(arguments.json, simulation_json(scenario, title, predictions, choice ? &*choice : nullptr));
  if (!arguments.trace.empty()) outputs.emplace_back(arguments.trace, simulation_trace(predictions));
  if (!arguments.html.empty()) {
    outputs.emplace_back(
        arguments.html,
        plan_page(
            {"A training step, simulated", simulation_heading(scenario, title) + ".",
             simulation_rows(scenario, predictions),
             "The whole step, and one layer's attention. Work and tokens: max / mean. MB in N: sent in one "
             "layer's forward between ranks whose smallest common group has N ranks. Click a line to see its plan."},
            plans));
  }
  write_outputs(outputs);
  return kDone;
}

}  // namespace evenspan::cli
