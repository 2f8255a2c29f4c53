// Measures the machine at hand and makes the profile that the simulator needs.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "evenspan/comm/communicator.h"
#include "evenspan/core/work_part.h"
#include "evenspan/plan/request.h"
#include "evenspan/simulate/profile.h"

namespace evenspan::calibrate {

struct Options {
  std::string name = "calibrated";
  plan::AttentionShape shape{8, 2, 64, plan::ElementType::f32};
  int64_t longest = 4096;      // the grid's last point of queries and keys; it begins at 19, at 128 on other devices
  double seconds = 60;         // rounds of all measurements begin until then, and at least two are made
  int32_t ranks_per_node = 0;  // of the communicator; 0: all ranks are on one node
  std::string device = "cpu";  // of the executor's tensors, as torch writes it
};

struct Calibration {
  simulate::Profile profile;
  std::string about;                                         // what was measured, in a sentence
  std::vector<std::pair<std::string, std::string>> sources;  // how, by field of the profile
};

// Every measurement is a piece of a plan's program, run by the executor on all ranks at once, so that ranks take from
// each other what they will take in a run. All of them take turns, round after round; a time is the least over the
// rounds, in the mean over the ranks. Threads of a rank: as the caller set them. Every rank calls it and gets the same
// result. Throws invalid_argument for the first broken rule of the options; communication when a rank fails. `work` is
// told between measurements, on every rank.
Calibration calibrate(const Options& options, const comm::Communicator& communicator, const WorkPart& work = {});

// The profile as the JSON that `evenspan simulate --profile` reads, with a line for each row of a table. Numbers have
// six digits.
std::string to_json(const Calibration& calibration);

}  // namespace evenspan::calibrate
