// Lines through measured times.
#pragma once

#include <vector>

namespace evenspan::calibrate {

// seconds = fixed_seconds + size / per_second.
struct Line {
  double fixed_seconds = 0;
  double per_second = 0;
};

// The line with the least relative errors: each residual counts in parts of its time, so that small sizes decide about
// `fixed_seconds` and large ones about `per_second`. A negative fixed part becomes 0, and the slope is fitted alone.
// Throws invalid_argument when the times do not grow with the sizes. REQUIRES: as many times as sizes, all positive,
// at least two sizes that differ.
Line fit_line(const std::vector<double>& sizes, const std::vector<double>& seconds);

}  // namespace evenspan::calibrate
