// Dealing whole things to bins of two capacities.
#pragma once

#include <cstdint>
#include <vector>

namespace evenspan::plan {

// Attention seconds and tokens: of a document, or of what a bin holds.
struct Load {
  double attention = 0;
  double tokens = 0;

  Load& operator+=(const Load& other) {
    attention += other.attention;
    tokens += other.tokens;
    return *this;
  }
  friend Load operator+(Load a, const Load& b) { return a += b; }
  friend Load operator*(double factor, const Load& load) { return {factor * load.attention, factor * load.tokens}; }
};

// What of `capacity` a load fills, of whichever it fills more.
double fullness(const Load& load, const Load& capacity);

// The bin of each item: the largest first, each to the bin that is then least full; then, at most 4 times for each bin,
// the fullest one gives the least full one an item, or changes one for a smaller one, if that leaves both less full
// than it was. `bins` holds what they have already, and gets the items' loads. All bins have one capacity. O(items x
// (bins + log items)). Deterministic.
std::vector<int32_t> deal(const std::vector<Load>& items, const Load& capacity, std::vector<Load>* bins);

}  // namespace evenspan::plan
