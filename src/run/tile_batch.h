// Tiles that one kernel call takes together.
#pragma once

#include <array>
#include <vector>

#include "evenspan/plan/program.h"

namespace evenspan::run {

// Blocks of a tile in a kernel call, in the order of the fields of its operation: query, key, value, output, lse; of
// gradients also those of output, query, key and value.
constexpr int kMostUses = 9;

// Successive segments of equal shape whose blocks lie at even distances: documents of one length, for example.
template <class Segment>
struct TileBatch {
  const Segment* first;
  int64_t count;
  // [use] bytes from a tile's block to the next tile's; 0 for one tile
  std::array<int64_t, kMostUses> steps;
};

// All segments of an Attend or AttendGradient, in order. What the tiles of a batch write does not overlap.
template <class Body>
using TileBatches = std::vector<TileBatch<typename decltype(Body::items)::value_type>>;
TileBatches<plan::Attend> tile_batches(const plan::Attend& attend, const plan::AttentionShape& shape);
TileBatches<plan::AttendGradient> tile_batches(const plan::AttendGradient& attend, const plan::AttentionShape& shape);

}  // namespace evenspan::run
