// Work of spans, which the solver cuts by.
#pragma once

#include <algorithm>

#include "evenspan/plan/placement.h"
#include "evenspan/plan/request.h"

namespace evenspan::plan {

inline double span_work(const Request& request, const PlacedSpan& placed) {
  return request.cost.work(num_pairs(request.documents[placed.document], placed.span), placed.span.size());
}

// The largest number in [low, high] for which `fits`, which holds for `low` and up to some number.
template <class Fits>
int64_t largest_between(int64_t low, int64_t high, Fits&& fits) {
  while (low < high) {
    const int64_t middle = low + (high - low + 1) / 2;
    fits(middle) ? low = middle : high = middle - 1;
  }
  return low;
}

// The largest number in [0, most] for which `fits`, which holds for 0 and up to some number, found from a guess.
template <class Fits>
int64_t largest_fitting(int64_t most, int64_t guess, Fits&& fits) {
  int64_t low = 0, high = most;  // the number is between them
  int64_t at = std::clamp<int64_t>(guess, 0, most);
  for (int64_t step = 1; low < high; step *= 2) {
    const bool fitting = at == 0 || fits(at);
    fitting ? low = at : high = at - 1;
    const int64_t next = fitting ? at + step : at - step;
    if (next <= low || next > high) break;
    at = next;
  }
  return largest_between(low, high, fits);
}

// The largest size of a part at the end of the span for which `fits(size, work of the part)`, which holds up to some
// size.
template <class Fits>
int64_t largest_end(const Request& request, const PlacedSpan& placed, Fits&& fits) {
  return largest_between(0, placed.span.size(), [&](int64_t size) {
    const PlacedSpan end{placed.document, Span{placed.span.end - size, placed.span.end}};
    return fits(size, span_work(request, end));
  });
}

}  // namespace evenspan::plan
