// What a resumed run does otherwise than the run that it goes on with.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "evenspan/train/config.h"

namespace evenspan::train {

// A line for each thing that a user should know, none where nothing differs: what becomes of the learning rate from
// `first_step` on, and which settings that change the mathematics have other values. `before` is the TOML text in the
// checkpoint. Settings of paths, of ranks and of what is written are nobody's surprise.
std::vector<std::string> resume_notes(const Config& now, const std::string& before, int64_t first_step);

}  // namespace evenspan::train
