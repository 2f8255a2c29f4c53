#include "evenspan/plan/halo.h"

#include <algorithm>

#include "evenspan/core/error.h"

namespace evenspan::plan {
namespace {

// Calls f(span, rank, moves) for each home span of all ranks, with the moves into its halo.
template <class F>
void for_each_span(const Placement& placement, int32_t width, F&& f) {
  if (width < 1) fail_invalid("[halo] a convolution has width ", width, "; it is at least 1");
  std::vector<HaloMove> moves;
  for (Rank rank(0); rank < placement.num_ranks(); ++rank.value) {
    int64_t home_row = 0, padded_row = 0;
    for (const auto& [document, rows] : placement.spans(rank)) {
      padded_row += width - 1;
      const HaloSpan span{home_row, padded_row, rows.size(), std::min<int64_t>(width - 1, rows.begin)};
      moves.clear();
      for (const auto& [home, piece] : placement.homes(document, {rows.begin - span.halo, rows.begin})) {
        moves.push_back({home, rank, placement.row_of(home, document, piece), padded_row - (rows.begin - piece.begin),
                         piece.size()});
      }
      f(span, rank, moves);
      home_row += rows.size();
      padded_row += rows.size();
    }
  }
}

}  // namespace

Halos halos(const Placement& placement, int32_t width, Rank rank) {
  Halos result;
  for_each_span(placement, width, [&](const HaloSpan& span, Rank at, const std::vector<HaloMove>& moves) {
    for (const HaloMove& move : moves) {
      if (move.from == rank || at == rank) result.moves.push_back(move);
    }
    if (at != rank) return;
    result.spans.push_back(span);
    result.num_padded_rows = span.padded_row + span.num_rows;
  });
  std::sort(result.moves.begin(), result.moves.end());
  return result;
}

int64_t num_fetched_rows(const Placement& placement, int32_t width) {
  int64_t rows = 0;
  for_each_span(placement, width, [&](const HaloSpan&, Rank at, const std::vector<HaloMove>& moves) {
    for (const HaloMove& move : moves) rows += move.from != at ? move.num_rows : 0;
  });
  return rows;
}

}  // namespace evenspan::plan
