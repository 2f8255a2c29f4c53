// Files that a command writes. Errors are of kind resource.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace evenspan::cli {

// Writes the texts to the paths ("-": standard output): all of them whole, or none. A path that is no regular file
// (a pipe, a device) is written directly.
void write_outputs(const std::vector<std::pair<std::string, std::string>>& path_and_text);

}  // namespace evenspan::cli
