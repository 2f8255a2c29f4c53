// Files that programs write: checked before there is anything to write, and written whole or not at all. Errors are of
// kind resource; the text names the file and says what to do.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace evenspan {

// An option and the file that it names: empty where the option is not given, "-" for standard output.
struct Output {
  std::string option;  // "--json"
  std::string path;
};

// Throws for a file that cannot be written as things are: a folder, a name in a folder that is not there or may not be
// written to; and invalid_argument where two options name the same file. Touches nothing.
void check_outputs(const std::vector<Output>& outputs);

// Writes the texts to the paths ("-": standard output): all of them whole, or none. A path that is no regular file (a
// pipe, a device) is written directly.
void write_outputs(const std::vector<std::pair<std::string, std::string>>& path_and_text);

}  // namespace evenspan
