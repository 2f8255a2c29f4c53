// Inside a node all maps are gathered; between nodes one state goes along the chain, to the last part of the next
// node's run of parts, which passes it on at once and hands it to the others of its run.
#include <algorithm>

#include "plan/transport/transport.h"

namespace evenspan::plan {
namespace {

// Parts that follow each other on one node.
std::vector<PartRange> runs_of(const Chain& chain) {
  std::vector<PartRange> runs;
  for (int32_t p = 0; p < chain.size(); ++p) {
    if (p > 0 && chain.node(p) == chain.node(p - 1)) {
      runs.back().end = p + 1;
    } else {
      runs.push_back({p, p + 1});
    }
  }
  return runs;
}

}  // namespace

// Round 0 gathers inside the runs. In round q + 1 the carrier of run q, which holds its last part, folds it and sends.
Scan scan_two_level(const Chain& chain, const ScanOptions& options) {
  Scan scan;
  const HeadRange heads{0, options.num_heads};
  const std::vector<PartRange> runs = runs_of(chain);
  for (const PartRange& run : runs) {
    for (int32_t p = run.begin; p + 1 < run.end; ++p) {
      for (const Rank to : distinct_ranks(chain, p + 1, run.end, chain.rank(p))) {
        scan.moves.push_back({0, chain.rank(p), to, {p, p + 1}, heads});
      }
    }
  }
  for (size_t q = 0; q < runs.size(); ++q) {
    const PartRange& run = runs[q];
    const Rank carrier = chain.rank(run.end - 1);
    const bool goes_on = q + 1 < runs.size();
    const auto carrying = static_cast<int32_t>(q) + 1;
    for (const Rank rank : distinct_ranks(chain, run.begin, run.end, Rank(-1))) {
      const bool carries = rank == carrier;
      int32_t end = run.end - 1;  // folds up to its last part; the carrier, who passes it on, the whole run
      while (chain.rank(end) != rank) --end;
      if (carries && goes_on) ++end;
      for (int32_t p = std::max(run.begin, 1); p < end; ++p) {
        const int32_t round = carries || q == 0 ? carrying : carrying + 1;
        scan.folds.push_back({round, rank, {0, p + 1}, {0, p}, {p, p + 1}, heads});
      }
      if (!carries && q > 0) scan.moves.push_back({carrying, carrier, rank, {0, run.begin}, heads});
    }
    if (goes_on) scan.moves.push_back({carrying, carrier, chain.rank(runs[q + 1].end - 1), {0, run.end}, heads});
  }
  return scan;
}

StateTraffic traffic_two_level(const Chain& chain, const ScanOptions&) {
  StateTraffic traffic;
  const std::vector<PartRange> runs = runs_of(chain);
  bool gathers = false, hands_on = false;
  for (const PartRange& run : runs) {
    for (int32_t p = run.begin; p + 1 < run.end; ++p) {
      const auto receivers = static_cast<int64_t>(distinct_ranks(chain, p + 1, run.end, chain.rank(p)).size());
      gathers = gathers || receivers > 0;
      traffic.states += receivers;
      if (p > 0) traffic.transitions += receivers;
    }
    if (run.begin == 0) continue;
    const auto others = static_cast<int64_t>(distinct_ranks(chain, run.begin, run.end, chain.rank(run.end - 1)).size());
    hands_on = others > 0;  // of the last run, in the end
    traffic.states += 1 + others;
  }
  traffic.steps = static_cast<int32_t>(runs.size()) - 1 + (gathers ? 1 : 0) + (hands_on ? 1 : 0);
  return traffic;
}

}  // namespace evenspan::plan
