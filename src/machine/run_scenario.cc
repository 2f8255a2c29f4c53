#include "evenspan/machine/run_scenario.h"

#include "evenspan/core/error.h"
#include "evenspan/machine/machine_files.h"
#include "evenspan/simulate/planner.h"

namespace evenspan::machine {

std::string note_of_default_profile(std::string_view what) {
  return join_text(what, " for the machine of the profile ", kDefaultProfile,
                   ", since none is named; name that of the machine at hand, which evenspan calibrate measures");
}

RunScenario scenario_of_run(const RunMachine& run, const simulate::Model& model) {
  const bool by_default = run.profile.empty() && run.strategy == simulate::kAuto;
  const auto note = [] { return note_of_default_profile("auto chooses"); };
  if (run.profile.empty() && !by_default) {
    if (run.topology.empty()) return {};
    fail_invalid("[plan] the topology ", run.topology, " has no effect with ", run.strategy,
                 " and no profile, whose links it completes; leave it out, or give a profile");
  }
  const simulate::Profile profile = read_profile(by_default ? kDefaultProfile : run.profile);
  try {
    const simulate::Machine machine = machine_of_run(run.topology, profile, run.num_ranks, run.ranks_per_node);
    return {simulate::scenario_of_run(profile, model, simulate::machine_of_replica(machine, run.num_replicas)),
            by_default ? note() : ""};
  } catch (const Error& error) {
    if (!by_default) throw;
    fail(error.kind(), error.what(), " (", note(), ")");
  }
}

}  // namespace evenspan::machine
