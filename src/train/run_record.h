// Reads metrics.jsonl.
#pragma once

#include <cstdint>
#include <string>

#include "evenspan/train/report.h"

namespace evenspan::train {

// The lines of a run's metrics up to a step, without its end: what a run that resumes there keeps.
struct KeptLines {
  std::string text;
  bool has_step = false;        // the step itself
  bool has_evaluation = false;  // after it
};

// No lines without a file. Throws invalid_argument for a line that is no line of metrics, but for the last one, which a
// crash may have torn; and for steps that do not follow each other up to that one.
KeptLines lines_until(const std::string& path, int64_t step);

// How a run's batches were cut.
struct MicroBatchTotals {
  double mean = 0;                           // of a step, on the replica that has most of them
  int64_t most = 1;                          // of a step
  double seconds = 0, modelled_seconds = 0;  // of all steps that a model was made of
};
MicroBatchTotals micro_batch_totals(const RunRecord& run);

}  // namespace evenspan::train
