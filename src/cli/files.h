// Files that a command reads and writes. Errors are of kind resource for the machine and invalid_argument for contents.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace evenspan::cli {

// The contents of a file, or of standard input for "-"; unpacked when they are gzip (told by the first two bytes).
std::string read_input(const std::string& path);

// One length a line. Blank lines at the end and lines that begin with '#' are passed over; `name` says in errors where
// the text is from. Lengths that no document can have (0, negative) are left to the planner, which names the document.
std::vector<int64_t> parse_lengths(const std::string& text, const std::string& name);

// Writes the texts to the paths ("-": standard output): all of them whole, or none. A path that is no regular file
// (a pipe, a device) is written directly.
void write_outputs(const std::vector<std::pair<std::string, std::string>>& path_and_text);

}  // namespace evenspan::cli
