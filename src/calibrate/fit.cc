#include "evenspan/calibrate/fit.h"

#include <algorithm>

#include "evenspan/core/error.h"

namespace evenspan::calibrate {

Line fit_line(const std::vector<double>& sizes, const std::vector<double>& seconds) {
  EVENSPAN_CHECK_EQ(sizes.size(), seconds.size());
  // Least squares of (a + b x) / y - 1.
  double aa = 0, ab = 0, bb = 0, a1 = 0, b1 = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    EVENSPAN_CHECK_EQ(seconds[i] > 0, true);
    const double u = 1 / seconds[i], v = sizes[i] / seconds[i];
    aa += u * u;
    ab += u * v;
    bb += v * v;
    a1 += u;
    b1 += v;
  }
  const double determinant = aa * bb - ab * ab;
  double fixed = (a1 * bb - b1 * ab) / determinant;
  double slope = (b1 * aa - a1 * ab) / determinant;
  if (!(fixed > 0)) {
    fixed = 0;
    slope = b1 / bb;
  }
  if (!(slope > 0)) return Line{*std::min_element(seconds.begin(), seconds.end()), sizes.back() / seconds.back()};
  return Line{fixed, 1 / slope};
}

}  // namespace evenspan::calibrate
