// TokenRing (arXiv 2412.20501): keys and values stay at home. Queries go around the ring, one hop a round, as far as
// somebody's keys still wait for them, and each rank's partial outputs go straight back to their homes, under the tiles
// of the next round. Zigzag chunks make causal work even.
#include "plan/strategy/parts.h"
#include "plan/strategy/rows.h"
#include "plan/strategy/table.h"

namespace evenspan::plan {
namespace {

// Calls f(round, here, travelling) for every hop of the queries of `home`, the last hop first: `here` sees the
// receiver's keys, `travelling` those and the keys of later receivers.
template <class F>
void for_each_hop(const Request& request, const Placement& placement, int32_t home, F&& f) {
  const int32_t num_ranks = placement.num_ranks();
  Rows travelling;
  for (int32_t round = num_ranks - 1; round > 0; --round) {
    const Rows here = rows_seeing(request, placement, Rank(home), Rank((home + round) % num_ranks));
    travelling = join(travelling, here);
    f(round, here, travelling);
  }
}

}  // namespace

Draft write_token_ring(const Request& request) {
  const int32_t num_ranks = request.num_ranks();
  Draft draft{zigzag_placement(request), {}, {}};
  for (int32_t home = 0; home < num_ranks; ++home) {
    for (int32_t round = 0; round < num_ranks; ++round) {
      const Rank rank((home + round) % num_ranks);
      for (const PlacedSpan& queries : draft.placement.spans(Rank(home))) {
        for (const Span& keys : draft.placement.spans_of(rank, queries.document)) {
          attend(request, rank, round, queries, keys, all_heads(request), &draft.tasks);
        }
      }
    }
    for_each_hop(request, draft.placement, home, [&](int32_t round, const Rows&, const Rows& travelling) {
      const Rank from((home + round - 1) % num_ranks), to((home + round) % num_ranks);
      for (const auto& [document, rows] : travelling) {
        draft.moves.push_back(Move{round, from, to, Operand::query, document, rows, all_heads(request)});
      }
    });
  }
  return draft;
}

Traffic token_ring_traffic(const Request& request, const Placement& placement) {
  const RowBytes bytes(request.shape);
  Traffic traffic{0, 2 * (placement.num_ranks() - 1)};
  for (int32_t home = 0; home < placement.num_ranks(); ++home) {
    for_each_hop(request, placement, home, [&](int32_t, const Rows& here, const Rows& travelling) {
      traffic.sent_bytes += num_rows(travelling) * bytes.query + num_rows(here) * bytes.partial;
    });
  }
  return traffic;
}

}  // namespace evenspan::plan
