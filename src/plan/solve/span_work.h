// Work of spans, which the solver cuts by.
#pragma once

#include "evenspan/plan/placement.h"
#include "evenspan/plan/request.h"

namespace evenspan::plan {

inline double span_work(const Request& request, const PlacedSpan& placed) {
  return request.cost.work(num_pairs(request.documents[placed.document], placed.span), placed.span.size());
}

// The largest size of a part at the end of the span for which `fits(size, work of the part)`, which holds up to some
// size.
template <class Fits>
int64_t largest_end(const Request& request, const PlacedSpan& placed, Fits&& fits) {
  int64_t low = 0, high = placed.span.size();
  while (low < high) {
    const int64_t size = low + (high - low + 1) / 2;
    const PlacedSpan end{placed.document, Span{placed.span.end - size, placed.span.end}};
    if (fits(size, span_work(request, end))) {
      low = size;
    } else {
      high = size - 1;
    }
  }
  return low;
}

}  // namespace evenspan::plan
