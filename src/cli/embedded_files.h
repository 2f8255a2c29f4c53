// Files that the build puts into the program.
#pragma once

#include <map>
#include <string>

namespace evenspan::cli {

// Texts of the files in profiles/ by name, without .json.
const std::map<std::string, std::string>& shipped_profiles();

// page/page.html, with __DATA__ where its data goes.
extern const char* const kPage;

}  // namespace evenspan::cli
