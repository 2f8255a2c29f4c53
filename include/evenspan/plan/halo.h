// Rows before a span that other ranks hold: what a causal convolution of some width needs of them.
#pragma once

#include <cstdint>
#include <vector>

#include "evenspan/plan/placement.h"

namespace evenspan::plan {

// A span with the rows before it: rank's tensor with halos has, for each home span in order, width - 1 rows before the
// span's own, of which the last `halo` are of the same document and the others are before its begin.
struct HaloSpan {
  int64_t home_row = 0;    // of the span's first row in the rank's own tensors
  int64_t padded_row = 0;  // of the same row in the tensor with halos
  int64_t num_rows = 0;
  int64_t halo = 0;  // rows before it that come from the same document, at most width - 1
};

// Consecutive rows that go from the rank which is home to them into another's halo.
struct HaloMove {
  Rank from, to;
  int64_t home_row = 0;    // at the sender
  int64_t padded_row = 0;  // at the receiver
  int64_t num_rows = 0;
  friend auto operator<=>(const HaloMove&, const HaloMove&) = default;
};

// The rank's part of the halos of a convolution of `width` >= 1 taps along every document. Rows of a halo that the rank
// is home to itself are moves from it to itself. Both ends derive the same moves in the same order.
struct Halos {
  std::vector<HaloSpan> spans;  // [home span]
  std::vector<HaloMove> moves;  // that the rank takes part in, sorted
  int64_t num_padded_rows = 0;
};
Halos halos(const Placement& placement, int32_t width, Rank rank);

// Rows that all ranks together fetch from others.
int64_t num_fetched_rows(const Placement& placement, int32_t width);

}  // namespace evenspan::plan
