// The files of profiles/, which the build puts into the program.
#pragma once

#include <map>
#include <string>

namespace evenspan::cli {

// Texts of the files by name, without .json.
const std::map<std::string, std::string>& shipped_profiles();

}  // namespace evenspan::cli
