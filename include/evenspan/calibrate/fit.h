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
// Where times do not grow with sizes, what sizes cost is below the noise: then the fixed part is the least time, and
// the rate that of the last size, which is at most the true one. REQUIRES: as many times as sizes, all positive, at
// least two sizes that differ, ascending.
Line fit_line(const std::vector<double>& sizes, const std::vector<double>& seconds);

}  // namespace evenspan::calibrate
