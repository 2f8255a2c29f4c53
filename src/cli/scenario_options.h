// The options that say on what machine a step of what model is simulated, the same for every command that simulates.
#pragma once

#include <string>
#include <vector>

#include "cli/request_options.h"
#include "evenspan/core/output_file.h"
#include "evenspan/machine/run_scenario.h"
#include "evenspan/simulate/prediction.h"

namespace evenspan::cli {

struct ScenarioArguments {
  std::string topology, profile = machine::kDefaultProfile, model, transport = "all_gather";
};

// "a100-40gb-ib, ...", those that are shipped.
std::string profile_names();
// --profile.
void declare_profile(Options* options, std::string* profile);
// --topology.
void declare_topology(Options* options, std::string* topology);
// --ranks-per-node, --topology, --profile and --model; `instead` says what --model stands for.
void declare_machine(Options* options, RequestArguments* request, ScenarioArguments* arguments,
                     const std::string& instead);
// These and --transport.
void declare_scenario(Options* options, RequestArguments* request, ScenarioArguments* arguments);

// Throws where neither or both of --ranks and --topology are given; `command` is "evenspan plan".
void check_topology(const Options& options, const std::string& command);

// Throws where two of the options read standard input, and for outputs that cannot be written.
void check_files(const RequestArguments& request, const ScenarioArguments& scenario,
                 const std::vector<Output>& outputs);

// Throws for what contradicts itself or is missing among --ranks, --topology and the shape; `command` is "evenspan
// simulate". For options that declare_scenario() and declare_attention() declared.
void check_scenario(const Options& options, const std::string& command);

// Reads the files of the options of declare_machine(). Sets the request's shape where --model gives it.
simulate::Scenario read_machine(const Options& options, const ScenarioArguments& arguments, RequestArguments* request);
// Reads the files of the options of declare_scenario().
simulate::Scenario read_scenario(const Options& options, const ScenarioArguments& arguments, RequestArguments* request);

// The request for the scenario's machine. Reads the lengths.
plan::Request read_request_for(const RequestArguments& arguments, const simulate::Scenario& scenario);

}  // namespace evenspan::cli
