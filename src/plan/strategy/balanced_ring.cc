// DistFlashAttn (arXiv 2310.03294): chunks of every document lie as in a ring, and a rank gets keys of at most half of
// the others. Whose queries see more, later, keys would take more rounds; ranks that have no keys of their own to look
// at by then take those queries instead, attend to the keys that they hold, and send the partial output back.
//
// Of a pair of ranks whose queries lie t ranks behind the keys, around the ring, the queries' rank computes what is at
// most half a ring away, in round t, and the keys' rank the rest, in round P - t. Under a causal mask each rank so has
// one chunk a round.
#include "plan/strategy/parts.h"
#include "plan/strategy/rows.h"
#include "plan/strategy/table.h"

namespace evenspan::plan {
namespace {

// Calls f(round, rank, queries, keys): the rank attends in the round to the keys of rank `keys` with queries of rank
// `queries`, one of which it is itself.
template <class F>
void for_each_pair(int32_t num_ranks, F&& f) {
  for (int32_t r = 0; r < num_ranks; ++r) {
    for (int32_t round = 0; 2 * round <= num_ranks; ++round) {
      const Rank before((r - round + num_ranks) % num_ranks);
      f(round, Rank(r), Rank(r), before);
      const bool assists = round > 0 && 2 * round < num_ranks;
      if (assists) f(round, Rank(r), before, Rank(r));
    }
  }
}

}  // namespace

Draft write_balanced_ring(const Request& request) {
  Draft draft{ring_placement(request), {}, {}};
  for_each_pair(request.num_ranks(), [&](int32_t round, Rank rank, Rank queries, Rank keys) {
    for (const PlacedSpan& rows : draft.placement.spans(queries)) {
      for (const Span& seen : draft.placement.spans_of(keys, rows.document)) {
        attend(request, rank, round, rows, seen, all_heads(request), &draft.tasks);
      }
    }
  });
  return draft;
}

Traffic balanced_ring_traffic(const Request& request, const Placement& placement) {
  const RowBytes bytes(request.shape);
  Traffic traffic{0, 2 * (request.num_ranks() / 2)};
  for_each_pair(request.num_ranks(), [&](int32_t, Rank rank, Rank queries, Rank keys) {
    if (queries == keys) return;
    if (rank == queries) {
      traffic.sent_bytes += num_rows(rows_seen(request, placement, queries, keys)) * bytes.key_value;
    } else {
      const int64_t rows = num_rows(rows_seeing(request, placement, queries, keys));
      traffic.sent_bytes += rows * (bytes.query + bytes.partial);
    }
  });
  return traffic;
}

}  // namespace evenspan::plan
