#include "evenspan/plan/halo.h"

#include <algorithm>

#include "evenspan/core/error.h"

namespace evenspan::plan {

Halos halos(const Plan& plan, int32_t width, Rank rank) {
  if (width < 1) fail_invalid("[halo] a convolution has width ", width, "; it is at least 1");
  const Placement& placement = plan.placement;
  Halos result;
  for (int32_t r = 0; r < placement.num_ranks(); ++r) {
    int64_t home_row = 0, padded_row = 0;
    for (const PlacedSpan& placed : placement.spans(Rank(r))) {
      const int64_t halo = std::min<int64_t>(width - 1, placed.span.begin);
      padded_row += width - 1;
      if (r == rank) result.spans.push_back({home_row, padded_row, placed.span.size(), halo});
      const Span before{placed.span.begin - halo, placed.span.begin};
      for (const Placement::Piece& piece : placement.homes(placed.document, before)) {
        const Span rows = piece.span.intersect(before);
        if (rows.empty() || (r != rank && piece.rank != rank)) continue;
        result.moves.push_back({piece.rank, Rank(r), placement.row_of(piece.rank, placed.document, rows),
                                padded_row - (placed.span.begin - rows.begin), rows.size()});
      }
      home_row += placed.span.size();
      padded_row += placed.span.size();
    }
    if (r == rank) result.num_padded_rows = padded_row;
  }
  std::sort(result.moves.begin(), result.moves.end());
  return result;
}

}  // namespace evenspan::plan
