// A parallel prefix scan (Hillis and Steele): in step s every part sends the map of the 2^s parts up to its own to the
// part 2^s after it. Maps are composed, so the order of sums is another than in the transports that fold part by part.
#include <algorithm>
#include <set>

#include "plan/transport/transport.h"

namespace evenspan::plan {
namespace {

// Calls f(step, from, to, range) for each move: a rank with several parts receives a range once.
template <class F>
void for_each_logarithmic_move(const Chain& chain, F&& f) {
  std::set<std::pair<PartRange, Rank>> sent;
  for (int32_t reach = 1, step = 0; reach < chain.size(); reach *= 2, ++step) {
    for (int32_t p = 0; p + reach < chain.size(); ++p) {
      const Rank from = chain.rank(p), to = chain.rank(p + reach);
      const PartRange range{std::max(0, p + 1 - reach), p + 1};
      if (from != to && sent.emplace(range, to).second) f(step, from, to, range);
    }
  }
}

}  // namespace

// Before the step of this reach, part p holds [p + 1 - reach, p + 1) and, for its own use, [p + 1 - reach, p).
Scan scan_logarithmic(const Chain& chain, const ScanOptions& options) {
  Scan scan;
  const HeadRange heads{0, options.num_heads};
  for_each_logarithmic_move(chain, [&](int32_t step, Rank from, Rank to, PartRange range) {
    scan.moves.push_back({step, from, to, range, heads});
  });
  for (int32_t reach = 1, step = 0; reach < chain.size(); reach *= 2, ++step) {
    for (int32_t p = reach; p < chain.size(); ++p) {
      const Rank rank = chain.rank(p);
      const PartRange far{std::max(0, p + 1 - 2 * reach), p + 1 - reach};
      const auto fold = [&](int32_t end) {
        if (far.end < end) scan.folds.push_back({step + 1, rank, {far.begin, end}, far, {far.end, end}, heads});
      };
      fold(p);
      if (p + 2 * reach < chain.size()) fold(p + 1);
    }
  }
  return scan;
}

StateTraffic traffic_logarithmic(const Chain& chain, const ScanOptions&) {
  StateTraffic traffic;
  int32_t last = -1;
  for_each_logarithmic_move(chain, [&](int32_t step, Rank, Rank, PartRange range) {
    ++traffic.states;
    if (range.begin > 0) ++traffic.transitions;
    if (step != last) ++traffic.steps;
    last = step;
  });
  return traffic;
}

}  // namespace evenspan::plan
