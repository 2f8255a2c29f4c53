// The words after `evenspan calibrate`, the same for ranks as threads and as processes.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "evenspan/calibrate/calibrate.h"

namespace evenspan::calibrate {

struct Command {
  Options options;
  std::string out;               // file of the profile; "-" is standard output
  int32_t threads = 1;           // of each rank, >= 1
  std::optional<int32_t> ranks;  // where they are threads
  bool quiet = false;            // nothing is said of progress
  bool help = false;             // the rest is then not read
};

// Throws invalid_argument for the first word that is no option or has no good value, with the nearest option.
Command parse_command(const std::vector<std::string>& words);

// The options, a line or two for each.
std::string describe_options();

// Calibrates as the command says, on every rank; rank 0 writes the file, whole or not at all, and returns what it says
// to the user, others an empty text. Sets the calling thread's number of torch threads.
std::string run_command(const Command& command, const comm::Communicator& communicator);

}  // namespace evenspan::calibrate
