// The sum that every causal count is made of.
#pragma once

#include <cstdint>

namespace evenspan::plan {

// sum over t in [1, n] of min(t, cap); 0 when n or cap is not positive.
inline int64_t capped_triangle(int64_t n, int64_t cap) {
  if (n <= 0 || cap <= 0) return 0;
  return n <= cap ? n * (n + 1) / 2 : cap * (cap + 1) / 2 + (n - cap) * cap;
}

}  // namespace evenspan::plan
