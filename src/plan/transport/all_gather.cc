// Every part's map goes to all that have a later part, at once, and each folds those before its own (LASP-2, arXiv
// 2502.07563; for gated recurrences as in flash-linear-attention's context parallelism). A node gets one copy, which is
// passed on inside, as collectives over nodes do.
#include <algorithm>

#include "plan/transport/transport.h"

namespace evenspan::plan {
namespace {

// Calls f(step, from, to, part) for each move: in step 0 to the receivers in the part's node and to one receiver in
// each other node, in step 1 from there to the others.
template <class F>
void for_each_gather_move(const Chain& chain, F&& f) {
  for (int32_t p = 0; p + 1 < chain.size(); ++p) {
    const Rank from = chain.rank(p);
    const int32_t own_node = chain.node(p);
    std::vector<Rank> receivers = distinct_ranks(chain, p + 1, chain.size(), from);
    const auto node_of = [&](Rank rank) {
      const auto at = std::find(chain.ranks.begin(), chain.ranks.end(), rank) - chain.ranks.begin();
      return chain.nodes[static_cast<size_t>(at)];
    };
    std::stable_sort(receivers.begin(), receivers.end(), [&](Rank a, Rank b) { return node_of(a) < node_of(b); });
    for (size_t begin = 0, end = 0; begin < receivers.size(); begin = end) {
      end = begin + 1;
      while (end < receivers.size() && node_of(receivers[end]) == node_of(receivers[begin])) ++end;
      const bool direct = node_of(receivers[begin]) == own_node;
      const Rank first = receivers[begin + static_cast<size_t>(p) % (end - begin)];  // in turns
      for (size_t r = begin; r < end; ++r) {
        if (direct || receivers[r] == first) {
          f(0, from, receivers[r], p);
        } else {
          f(1, first, receivers[r], p);
        }
      }
    }
  }
}

}  // namespace

Scan scan_all_gather(const Chain& chain, const ScanOptions& options) {
  Scan scan;
  const HeadRange heads{0, options.num_heads};
  for_each_gather_move(chain, [&](int32_t step, Rank from, Rank to, int32_t part) {
    scan.moves.push_back({step, from, to, {part, part + 1}, heads});
  });
  for (const Rank rank : distinct_ranks(chain, 1, chain.size(), Rank(-1))) {
    int32_t last = chain.size() - 1;
    while (chain.rank(last) != rank) --last;
    for (int32_t p = 1; p < last; ++p) scan.folds.push_back({2, rank, {0, p + 1}, {0, p}, {p, p + 1}, heads});
  }
  return scan;
}

StateTraffic traffic_all_gather(const Chain& chain, const ScanOptions&) {
  StateTraffic traffic;
  for (int32_t p = 0; p + 1 < chain.size(); ++p) {
    const auto receivers = static_cast<int64_t>(distinct_ranks(chain, p + 1, chain.size(), chain.rank(p)).size());
    traffic.states += receivers;
    if (p > 0) traffic.transitions += receivers;
  }
  for_each_gather_move(chain,
                       [&](int32_t step, Rank, Rank, int32_t) { traffic.steps = std::max(traffic.steps, step + 1); });
  return traffic;
}

}  // namespace evenspan::plan
