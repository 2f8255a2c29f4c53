// Tiles that one kernel call takes together.
#pragma once

#include <array>
#include <tuple>
#include <utility>
#include <vector>

#include "evenspan/plan/program.h"

namespace evenspan::run {

// A block of a tile in a kernel call.
struct BlockUse {
  const plan::Block* block;
  bool written;
};
// In the order of the fields of KernelCall: query, key, value, output, lse; then the gradients of output, query, key
// and value.
std::array<BlockUse, 5> uses_of(const plan::Segment& segment);
std::array<BlockUse, 9> uses_of(const plan::SegmentGradient& segment);

// Successive segments of equal shape whose blocks lie at even distances: documents of one length, for example.
template <class Segment>
struct TileBatch {
  const Segment* first;
  int64_t count;
  // [use] bytes from a tile's block to the next tile's; 0 for one tile
  std::array<int64_t, std::tuple_size_v<decltype(uses_of(std::declval<Segment>()))>> steps;
};
using ForwardBatch = TileBatch<plan::Segment>;
using BackwardBatch = TileBatch<plan::SegmentGradient>;

// All segments, in order. What the tiles of a batch write does not overlap.
std::vector<ForwardBatch> tile_batches(const std::vector<plan::Segment>& segments, const plan::AttentionShape& shape);
std::vector<BackwardBatch> tile_batches(const std::vector<plan::SegmentGradient>& segments,
                                        const plan::AttentionShape& shape);

}  // namespace evenspan::run
