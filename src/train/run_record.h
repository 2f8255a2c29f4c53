// Reads metrics.jsonl.
#pragma once

#include <cstdint>
#include <string>

namespace evenspan::train {

// The lines of a run's metrics up to a step, without its end: what a run that resumes there keeps. Empty without a
// file. Throws invalid_argument for a line that is no line of metrics, but for the last one, which a crash may have
// torn; and for steps that do not follow each other up to that one.
std::string lines_until(const std::string& path, int64_t step);

}  // namespace evenspan::train
