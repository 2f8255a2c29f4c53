// Profiles, topologies and models as JSON files. docs/simulator.md describes them.
#pragma once

#include <string>

#include "evenspan/simulate/profile.h"

namespace evenspan::cli {

// The shipped profile of that name, or the profile in a file. Throws for a name that is neither, listing the shipped.
simulate::Profile read_profile(const std::string& name_or_file);

// The machine that a topology file describes; links that it leaves out are the profile's.
simulate::Machine read_topology(const std::string& file, const simulate::Profile& profile);

// The model of a Hugging Face config.json; its shape has the default element type.
simulate::Model read_model(const std::string& file);

}  // namespace evenspan::cli
