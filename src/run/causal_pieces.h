// Cutting a causal square for kernels that compute whole blocks.
#pragma once

#include <cstdint>
#include <vector>

#include "evenspan/core/ranges.h"

namespace evenspan::run {

// `count` rectangles of one size: the first is queries x keys, each next one lies `step` rows down and right of the one
// before. Where queries equal keys they are causal squares, elsewhere all their pairs count.
struct CausalPieces {
  int64_t count = 1, step = 0;
  Span queries, keys;
  bool causal() const { return queries == keys; }
};

// The causal square over [0, rows), each allowed pair once: squares of at most `leaf` rows along the diagonal first,
// which meet every row, then what is below them, by halves. REQUIRES: rows, leaf >= 1.
std::vector<CausalPieces> causal_pieces(int64_t rows, int64_t leaf);

}  // namespace evenspan::run
