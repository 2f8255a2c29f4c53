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

std::string profile_names() {
  std::string names;
  for (const auto& [name, text] : machine::shipped_profiles()) names += (names.empty() ? "" : ", ") + name;
  return names;
}

void declare_profile(Options* options, std::string* profile) {
  options->text("--profile", "NAME|FILE", "A shipped profile (" + profile_names() + ") or one as JSON", profile);
}

void declare_topology(Options* options, std::string* topology) {
  options->text("--topology", "FILE", "The machine as JSON, instead of --ranks and --ranks-per-node", topology);
}

void declare_machine(Options* options, RequestArguments* request, ScenarioArguments* arguments,
                     const std::string& instead) {
  options->integer("--ranks-per-node", "Ranks of a node, the last may have fewer; 0: as the profile's machine",
                   &request->ranks_per_node);
  declare_topology(options, &arguments->topology);
  declare_profile(options, &arguments->profile);
  options->text("--model", "FILE", "A Hugging Face config.json, instead of " + instead, &arguments->model);
}

void declare_scenario(Options* options, RequestArguments* request, ScenarioArguments* arguments) {
  declare_machine(options, request, arguments, "--heads, --kv-heads and --head-dim");
  options->text("--transport", "NAME", "How the states of the model's linear layers travel: " + transport_names(),
                &arguments->transport);
}

void check_topology(const Options& options, const std::string& command) {
  refuse_beside(options, "--topology", {"--ranks", "--ranks-per-node"});
  if (!options.given("--topology") && !options.given("--ranks")) {
    fail_invalid("[options] --ranks or --topology is missing; see ", command, " --help");
  }
}

void check_files(const RequestArguments& request, const ScenarioArguments& scenario,
                 const std::vector<Output>& outputs) {
  const Output inputs[] = {{"--lengths", request.lengths},
                           {"--topology", scenario.topology},
                           {"--profile", scenario.profile},
                           {"--model", scenario.model}};
  const Output* reads_standard_input = nullptr;
  for (const Output& input : inputs) {
    for (const Output& output : outputs) {
      if (input.path.empty() || input.path == "-" || input.path != output.path) continue;
      fail_invalid("[options] ", output.option, " would replace ", input.path, ", which ", input.option,
                   " reads; give them different files");
    }
    if (input.path != "-") continue;
    if (reads_standard_input != nullptr) {
      fail_invalid("[options] ", reads_standard_input->option, " and ", input.option,
                   " both read standard input; give one of them a file");
    }
    reads_standard_input = &input;
  }
  check_outputs(outputs);
}

void check_scenario(const Options& options, const std::string& command) {
  check_topology(options, command);
  refuse_beside(options, "--model", {"--heads", "--kv-heads", "--head-dim"});
}

simulate::Scenario read_machine(const Options& options, const ScenarioArguments& arguments, RequestArguments* request) {
  const plan::ElementType element = plan::parse_element_type(request->dtype);
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
  scenario.model.set_element(element);
  return scenario;
}

simulate::Scenario read_scenario(const Options& options, const ScenarioArguments& arguments,
                                 RequestArguments* request) {
  simulate::Scenario scenario = read_machine(options, arguments, request);
  if (options.given("--transport") && scenario.model.linear.empty()) {
    fail_invalid(
        "[options] --transport has no effect on a model without linear layers; leave it out, or give a --model "
        "whose layer_types has some");
  }
  scenario.model.states.transport = arguments.transport;
  simulate::validate(scenario.model);
  return scenario;
}

plan::Request read_request_for(const RequestArguments& arguments, const simulate::Scenario& scenario) {
  plan::Request request =
      read_request(arguments, scenario.machine.topology, simulate::cost_model(scenario.profile, scenario.model));
  simulate::plan_for_layers(scenario.model, &request);
  return request;
}

}  // namespace evenspan::cli
