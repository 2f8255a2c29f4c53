// What a run tells in metrics.jsonl.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>

#include "evenspan/train/batches.h"
#include "evenspan/train/trainer.h"

namespace evenspan::train {

// Appends one JSON object a line; every line is flushed. Does nothing without a path. All members throw resource, with
// the path, when the file cannot be written.
class MetricsFile {
 public:
  MetricsFile() = default;
  // Keeps the lines of an earlier run up to `resumed_step` and drops the later ones, which will be written again.
  MetricsFile(const std::string& path, int64_t resumed_step);

  // Whether the resumed step is in the lines that were kept, and no evaluation after it.
  bool lacks_evaluation() const { return lacks_evaluation_; }

  // What the run is: at its beginning and again at every resume, perhaps on another number of ranks.
  struct Header {
    int32_t num_ranks = 0, num_replicas = 1;
    std::string strategy, dtype;
    int64_t num_parameters = 0, num_layers = 0, documents = 0, epoch_tokens = 0, held_out = 0;
    int64_t dropped_empty = 0, dropped_invalid = 0;
  };
  void write(const Header& header);
  // Where the report has a placement, it is written too, with the lengths of `batch`, which is the step's.
  void write(const StepReport& report, const Batch& batch);
  void write_evaluation(int64_t step, double loss, int64_t labels);
  void write(const Summary& summary);

 private:
  void write_line(const std::string& line);

  std::string path_;
  std::ofstream out_;
  bool lacks_evaluation_ = false;
};

// The largest resident set of this process so far; 0 if unknown.
int64_t peak_rss_bytes();

}  // namespace evenspan::train
