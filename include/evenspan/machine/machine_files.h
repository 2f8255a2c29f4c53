// Profiles, topologies and models as JSON files. docs/simulator.md describes them.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "evenspan/simulate/profile.h"

namespace evenspan::machine {

// Texts of the files in profiles/ by name, without .json; the build puts them into the library.
const std::map<std::string, std::string>& shipped_profiles();

// The text of a file. Throws resource for one that cannot be read.
using ReadFile = std::function<std::string(const std::string& path)>;
std::string read_text_file(const std::string& path);

// The shipped profile of that name, or the profile in a file. Throws for a name that is neither, listing the shipped.
simulate::Profile read_profile(const std::string& name_or_file, const ReadFile& read = read_text_file);

// The machine that the text of a topology file describes; links that it leaves out are the profile's. `file` is the
// file's name, for errors.
simulate::Machine parse_topology(const std::string& text, const std::string& file, const simulate::Profile& profile);

// The machine of a run of `num_ranks` ranks: what the topology file says, which must have as many; or, where `topology`
// is empty, nodes of `ranks_per_node` ranks (0: all ranks on one node) with the profile's links. Throws
// invalid_argument for another number of ranks, and where both are given.
simulate::Machine machine_of_run(const std::string& topology, const simulate::Profile& profile, int32_t num_ranks,
                                 int32_t ranks_per_node);

struct ModelFile {
  simulate::Model model;  // its shape has the default element type
  std::string note;       // what of the file was left out; empty mostly
};
// The model of a Hugging Face config.json. Throws invalid_argument, naming the key, for what it says that is not
// weighed: what attention sees other than all keys before it or a window, layers of different shapes, encoders.
ModelFile parse_model(const std::string& text, const std::string& file);

}  // namespace evenspan::machine
