// What a run says on standard output: the lines of its steps.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "evenspan/train/corpus.h"
#include "evenspan/train/trainer.h"
#include "train/metrics.h"
#include "train/setup.h"

namespace evenspan::train {

// What a line says beside the step's report.
struct StepLine {
  int64_t last_step = 0;
  double tokens_per_second = 0;
  double seconds_left = 0;  // of the run
};
std::string progress_line(const StepReport& report, const StepLine& line);

// Counts steps between lines and times them. One rank uses it.
class Console {
 public:
  // A line for the first step of this call, for every step that `interval` divides, and for the last.
  Console(int64_t first_step, int64_t last_step, int64_t interval);
  void step(const StepReport& report);

 private:
  using Clock = std::chrono::steady_clock;

  int64_t first_, last_, interval_;
  int64_t tokens_ = 0;  // since the last line
  double seconds_ = 0;
  Clock::time_point start_;  // the end of the first step, which alone waits for its plan
};

// What the learning rate does: "0 to 0.001 in 10 steps, then a cosine to 0 at step 100".
std::string schedule_text(const OptimizerConfig& config, int64_t num_steps);

// The first words of a run: what it trains, on what, and what a user should know. `state_bytes` are the optimiser's of
// a rank.
std::string opening_text(const Config& config, const Setup& setup, const MetricsFile::Header& header,
                         const Corpus& corpus, int64_t state_bytes);

// The last words of a run: what was done, where it is kept and, where it was stopped, how to go on.
std::string closing_text(const Config& config, const Summary& summary);

}  // namespace evenspan::train
