#include "cli/scenario_options.h"

#include <iostream>

#include "cli/input.h"
#include "evenspan/core/error.h"
#include "evenspan/machine/machine_files.h"
#include "evenspan/plan/linear.h"
#include "evenspan/simulate/layers.h"

namespace evenspan::cli {
namespace {

void refuse_beside(const Options& options, const char* name, std::initializer_list<const char*> others) {
  for (const char* other : others) {
    if (options.given(name) && options.given(other)) {
      fail_invalid("[options] ", name, " and ", other, " say the same twice; give one of them");
    }
  }
}

std::string transport_names() {
  std::string names;
  for (const plan::TransportInfo& transport : plan::transports()) {
    names += (names.empty() ? "" : ", ") + std::string(transport.name);
  }
  return names;
}

}  // namespace

void declare_profile(Options* options, std::string* profile) {
  options->text("--profile", "NAME|FILE", "A shipped profile (a100-40gb-ib, flexsp-7b, h100-sxm) or one as JSON",
                profile);
}

void declare_topology(Options* options, std::string* topology) {
  options->text("--topology", "FILE", "The machine as JSON, instead of --ranks and --ranks-per-node", topology);
}

void declare_scenario(Options* options, RequestArguments* request, ScenarioArguments* arguments) {
  options->integer("--ranks-per-node", "Ranks of a node, the last may have fewer; 0: as the profile's machine",
                   &request->ranks_per_node);
  declare_topology(options, &arguments->topology);
  declare_profile(options, &arguments->profile);
  options->text("--model", "FILE", "A Hugging Face config.json, instead of --heads, --kv-heads and --head-dim",
                &arguments->model);
  options->text("--transport", "NAME", "How the states of the model's linear layers travel: " + transport_names(),
                &arguments->transport);
}

void check_topology(const Options& options, const std::string& command) {
  refuse_beside(options, "--topology", {"--ranks", "--ranks-per-node"});
  if (!options.given("--topology") && !options.given("--ranks")) {
    fail_invalid("[options] --ranks or --topology is missing; see ", command, " --help");
  }
}

void check_scenario(const Options& options, const std::string& command) {
  check_topology(options, command);
  refuse_beside(options, "--model", {"--heads", "--kv-heads", "--head-dim"});
}

simulate::Scenario read_scenario(const Options& options, const ScenarioArguments& arguments,
                                 RequestArguments* request) {
  simulate::Scenario scenario;
  scenario.profile = machine::read_profile(arguments.profile, read_input);
  scenario.machine = options.given("--topology")
                         ? machine::parse_topology(read_input(arguments.topology), arguments.topology, scenario.profile)
                         : simulate::make_machine(scenario.profile, request->ranks, request->ranks_per_node);
  if (options.given("--model")) {
    const machine::ModelFile read = machine::parse_model(read_input(arguments.model), arguments.model);
    if (!read.note.empty()) std::cerr << "evenspan: note: " << read.note << "\n";
    scenario.model = read.model;
    request->shape = scenario.model.shape;
  }
  scenario.model.shape = request->shape;
  scenario.model.set_element(plan::parse_element_type(request->dtype));
  if (options.given("--transport") && scenario.model.linear.empty()) {
    fail_invalid(
        "[options] --transport has no effect on a model without linear layers; leave it out, or give a --model "
        "whose layer_types has some");
  }
  scenario.model.states.transport = arguments.transport;
  simulate::validate(scenario.model);
  return scenario;
}

plan::Request read_request_for(const RequestArguments& arguments, const plan::Mask& mask,
                               const simulate::Scenario& scenario) {
  plan::Request request = read_request(arguments, mask);
  request.topology = scenario.machine.topology;
  request.cost = simulate::cost_model(scenario.profile, scenario.model);
  simulate::plan_for_layers(scenario.model, &request);
  return request;
}

}  // namespace evenspan::cli
