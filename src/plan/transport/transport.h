// How the states of one document travel: a scan over its parts, written in the order of the pass (forward from the
// first part, backward from the last), for all ranks that hold some of it.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "evenspan/plan/linear.h"

namespace evenspan::plan {

// The parts of a document, at least two, in the order of the pass.
struct Chain {
  std::vector<Rank> ranks;  // [part]; neighbours differ
  std::vector<int32_t> nodes;
  int32_t size() const { return static_cast<int32_t>(ranks.size()); }
  Rank rank(int32_t part) const { return ranks[static_cast<size_t>(part)]; }
  int32_t node(int32_t part) const { return nodes[static_cast<size_t>(part)]; }
};

// Parts [begin, end). From 0: the state after part end - 1; otherwise the map of these parts.
struct PartRange {
  int32_t begin = 0;
  int32_t end = 0;
  friend auto operator<=>(const PartRange&, const PartRange&) = default;
};

struct StateMove {
  int32_t round = 0;
  Rank from, to;  // differ
  PartRange range;
  HeadRange heads;
};

// On `rank`, `to` = `near` after `far`, for which far.end == near.begin. Before the moves of its round.
struct StateFold {
  int32_t round = 0;
  Rank rank;
  PartRange to, far, near;
  HeadRange heads;
};

// Rounds run in order on every rank; what a round's move brings is there for the next. A rank holds [p, p + 1) of its
// parts from the begin, and [0, p) of its parts p > 0 at the end.
struct Scan {
  std::vector<StateMove> moves;  // by round
  std::vector<StateFold> folds;  // in order
};

struct ScanOptions {
  int32_t num_heads = 1;
  int32_t blocks = 1;  // in [1, num_heads]
};

struct Transport {
  TransportInfo info;
  Scan (*scan)(const Chain& chain, const ScanOptions& options);
  StateTraffic (*traffic)(const Chain& chain, const ScanOptions& options);  // of a scan, in closed form
};

const Transport& find_transport(std::string_view name);  // throws invalid_argument with the nearest name

// One file each.
Scan scan_ring(const Chain& chain, const ScanOptions& options);
StateTraffic traffic_ring(const Chain& chain, const ScanOptions& options);
Scan scan_pipelined(const Chain& chain, const ScanOptions& options);
StateTraffic traffic_pipelined(const Chain& chain, const ScanOptions& options);
Scan scan_all_gather(const Chain& chain, const ScanOptions& options);
StateTraffic traffic_all_gather(const Chain& chain, const ScanOptions& options);
Scan scan_logarithmic(const Chain& chain, const ScanOptions& options);
StateTraffic traffic_logarithmic(const Chain& chain, const ScanOptions& options);
Scan scan_two_level(const Chain& chain, const ScanOptions& options);
StateTraffic traffic_two_level(const Chain& chain, const ScanOptions& options);

// Ranks of parts [first, last) other than `without`, each once, in the order of their first part.
std::vector<Rank> distinct_ranks(const Chain& chain, int32_t first, int32_t last, Rank without);

}  // namespace evenspan::plan
