// evenspan explain: why every document went where it went, and what limits the step.
#include <iostream>

#include "cli/command_table.h"
#include "cli/explain_output.h"
#include "cli/scenario_options.h"
#include "cli/simulate_output.h"
#include "cli/watch.h"
#include "evenspan/simulate/bound.h"
#include "plan/strategy/strategy.h"

namespace evenspan::cli {
namespace {

constexpr const char* kExplainSummary =
    "Says in words why the documents of a batch go where they go on a machine, and what limits the step.";

constexpr const char* kExplainExamples = R"(Examples:
  evenspan explain --lengths lengths.txt --ranks 64
  evenspan explain --lengths lengths.txt --topology cluster.json --model config.json --strategy hierarchical
  evenspan explain --lengths lengths.txt --ranks 8 --memory-budget 1GiB --json why.json

The machine and the model are those of evenspan simulate, whose results the figures come from. Files are written whole
or not at all. Exit code: 0 explained, 2 bad arguments or input, or a memory budget that no plan keeps.)";

struct ExplainArguments {
  RequestArguments request;
  ScenarioArguments scenario;
  std::string json;
};

Options declared(ExplainArguments* arguments) {
  arguments->request.knobs.strategy = simulate::kAuto;
  Options options("evenspan explain", kExplainSummary, kExplainExamples, {"--lengths"});
  declare_batch(&options, &arguments->request);
  declare_scenario(&options, &arguments->request, &arguments->scenario);
  options.text("--strategy", "NAME", "One of " + strategy_names() + ", auto; auto takes the one with the shortest step",
               &arguments->request.knobs.strategy);
  declare_attention(&options, &arguments->request);
  declare_knobs(&options, &arguments->request);
  options.text("--json", "OUT", "Write the explanation as JSON; - is standard output", &arguments->json);
  declare_quiet(&options, &arguments->request);
  return options;
}

}  // namespace

OptionList explain_options() {
  ExplainArguments arguments;
  return declared(&arguments).list();
}

int explain_command(const Arguments& words) {
  ExplainArguments arguments;
  Options options = declared(&arguments);
  if (!options.parse(words)) return kDone;
  check_scenario(options, "evenspan explain");
  check_files(arguments.request, arguments.scenario, {{"--json", arguments.json}});
  const std::string& strategy = arguments.request.knobs.strategy;
  if (strategy != simulate::kAuto) plan::find_strategy(strategy);
  check_idle_knobs(options, {strategy}, "evenspan explain");
  const plan::Mask mask = plan::parse_mask(arguments.request.mask);
  const simulate::Scenario scenario = read_scenario(options, arguments.scenario, &arguments.request);
  const plan::Request request = read_request_for(arguments.request, scenario);

  Watch watch("evenspan explain", arguments.request.quiet);
  const simulate::RunnablePlan planned = simulate::plan_to_run(request, &scenario, watch.work().part(0, 2));
  const simulate::Explanation explanation = simulate::explain(*planned.plan, scenario, watch.work().part(1, 2));
  watch.stop();
  const SimulationTitle title{request.documents.size(), request.documents.total_tokens(), to_string(mask),
                              explanation.step.lower_bound_seconds};
  (arguments.json == "-" ? std::cerr : std::cout) << simulation_heading(scenario, title) << "\n\n"
                                                  << explanation_text(scenario, planned, explanation);
  if (!arguments.json.empty()) write_outputs({{arguments.json, explanation_json(scenario, planned, explanation)}});
  return kDone;
}

}  // namespace evenspan::cli
