// The chain: every part receives the state before it, maps it and passes it on (LASP, arXiv 2404.02882), in blocks of
// heads that follow each other (All-Scan of ZeCO, arXiv 2507.01004; there the blocks are rows of the state, which only
// some recurrences leave apart, while heads are apart in all). A part sends one state, whatever the number of parts.
#include "plan/transport/transport.h"

namespace evenspan::plan {

Scan scan_pipelined(const Chain& chain, const ScanOptions& options) {
  Scan scan;
  for (int32_t round = 0; round < chain.size() - 1 + options.blocks - 1; ++round) {
    for (int32_t p = 0; p + 1 < chain.size(); ++p) {
      const int32_t block = round - p;
      if (block < 0 || block >= options.blocks) continue;
      const Span heads = equal_part(options.num_heads, block, options.blocks);
      const HeadRange range{static_cast<int32_t>(heads.begin), static_cast<int32_t>(heads.end)};
      const Rank rank = chain.rank(p);
      if (p > 0) scan.folds.push_back({round, rank, {0, p + 1}, {0, p}, {p, p + 1}, range});
      scan.moves.push_back({round, rank, chain.rank(p + 1), {0, p + 1}, range});
    }
  }
  return scan;
}

StateTraffic traffic_pipelined(const Chain& chain, const ScanOptions&) {
  return {chain.size() - 1, 0, chain.size() - 1};
}

Scan scan_ring(const Chain& chain, const ScanOptions& options) { return scan_pipelined(chain, {options.num_heads, 1}); }

StateTraffic traffic_ring(const Chain& chain, const ScanOptions& options) {
  return traffic_pipelined(chain, {options.num_heads, 1});
}

}  // namespace evenspan::plan
