// Segments cut into chunks, and chunks gathered into blocks that are computed together.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "evenspan/run/linear_kernel.h"

namespace evenspan::run::chunked {

// Consecutive chunks of one segment in a block.
struct ChunkRun {
  size_t segment = 0;
  int64_t num_chunks = 0;
  bool first = false;  // holds the segment's begin
  bool last = false;   // holds its end
};

// The c-th chunks of all runs make wave c: nothing in a wave depends on another chunk of it.
struct ChunkBlock {
  std::vector<ChunkRun> runs;    // longest first; the first `wave_size(c)` of them have a c-th chunk
  std::vector<RowRange> chunks;  // wave by wave, each in the order of the runs
  std::vector<int64_t> waves;    // where each begins in `chunks`, and their number
  int64_t chunk_tokens = 0;      // of the longest chunk

  int64_t num_chunks() const { return static_cast<int64_t>(chunks.size()); }
  int64_t num_waves() const { return static_cast<int64_t>(waves.size()) - 1; }
  bool all(bool ChunkRun::*which) const {
    return std::all_of(runs.begin(), runs.end(), [&](const ChunkRun& run) { return run.*which; });
  }
  // Whether every run is a whole segment of one chunk for which nothing is in `states`, [segment].
  template <class State>
  bool stands_alone(const std::vector<State>& states) const {
    return num_waves() == 1 && all(&ChunkRun::first) && all(&ChunkRun::last) &&
           std::none_of(runs.begin(), runs.end(), [&](const ChunkRun& run) { return states[run.segment].defined(); });
  }
  int64_t wave_size(int64_t wave) const {
    return waves[static_cast<size_t>(wave) + 1] - waves[static_cast<size_t>(wave)];
  }
};

// Every segment's chunks have `chunk_tokens` rows but for its last. As many as make whole blocks of `block_chunks` are
// blocks of one run, which are the same whatever other segments there are; what is left, and segments of at most half a
// chunk, share blocks of fewer than twice as many, or, where every run is one short chunk, of as many as have the rows
// of `block_chunks` whole ones, up to 16 times as many: the chunks of a block are padded to its longest, so that many
// short segments cost what their rows do. The blocks of a segment are in order.
std::vector<ChunkBlock> blocks_of(const std::vector<RowRange>& segments, int64_t chunk_tokens, int64_t block_chunks);

}  // namespace evenspan::run::chunked
