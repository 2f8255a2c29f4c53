// The machine by which the plans of a run are weighed, as its user names it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "evenspan/simulate/prediction.h"

namespace evenspan::machine {

// The shipped profile that is simulated where nobody names one.
constexpr const char* kDefaultProfile = "h100-sxm";

// What a user should know where `what` by kDefaultProfile, such as "auto chooses"; the same words everywhere.
std::string note_of_default_profile(std::string_view what);

struct RunMachine {
  std::string strategy;        // of the table, or simulate::kAuto
  std::string profile;         // a shipped name or a file; empty: none is named
  std::string topology;        // a file; empty: nodes of ranks_per_node
  int32_t num_ranks = 0;       // >= 1
  int32_t ranks_per_node = 0;  // 0: all ranks on one node, or as the topology says
  int32_t num_replicas = 1;    // of adjacent ranks; divides num_ranks
};

struct RunScenario {
  std::optional<simulate::Scenario> scenario;  // of a replica; none where no profile is named and nothing needs one
  std::string note;                            // note_of_default_profile(), or empty
};

// Reads the files that the run names. Throws invalid_argument for a topology without a profile, for a machine of other
// ranks or one on which replicas are not alike (simulate::machine_of_replica), for a profile that was not measured for
// the model's attention, and for an invalid model; resource for a file that cannot be read.
RunScenario scenario_of_run(const RunMachine& run, const simulate::Model& model);

}  // namespace evenspan::machine
