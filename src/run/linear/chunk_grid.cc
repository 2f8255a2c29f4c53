#include "run/linear/chunk_grid.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace evenspan::run::chunked {
namespace {

// As many short chunks as whole ones make a block: more have more states than caches hold.
constexpr int64_t kMostTimes = 16;

int64_t chunks_in(const RowRange& rows, int64_t chunk_tokens) {
  return (rows.size() + chunk_tokens - 1) / chunk_tokens;
}

// A run and the first of its rows.
struct StartedRun {
  ChunkRun run;
  int64_t row = 0;
  int64_t longest = 0;  // rows of its longest chunk
};

// REQUIRES: the longest piece is the first, and so on.
ChunkBlock block_of(const std::vector<StartedRun>& pieces, const std::vector<RowRange>& segments,
                    int64_t chunk_tokens) {
  ChunkBlock block;
  for (const StartedRun& piece : pieces) block.runs.push_back(piece.run);
  block.waves.push_back(0);
  for (int64_t wave = 0; wave < pieces.front().run.num_chunks; ++wave) {
    for (const StartedRun& piece : pieces) {
      if (wave >= piece.run.num_chunks) break;
      const int64_t row = piece.row + wave * chunk_tokens;
      block.chunks.push_back({row, std::min(row + chunk_tokens, segments[piece.run.segment].end)});
      block.chunk_tokens = std::max(block.chunk_tokens, block.chunks.back().size());
    }
    block.waves.push_back(block.num_chunks());
  }
  return block;
}

}  // namespace

std::vector<ChunkBlock> blocks_of(const std::vector<RowRange>& segments, int64_t chunk_tokens, int64_t block_chunks) {
  std::vector<ChunkBlock> blocks;
  std::vector<StartedRun> rests;
  for (size_t s = 0; s < segments.size(); ++s) {
    const int64_t total = chunks_in(segments[s], chunk_tokens);
    int64_t done = 0;
    const auto piece = [&](int64_t count) {
      const int64_t first = std::exchange(done, done + count);
      const int64_t row = segments[s].begin + first * chunk_tokens;
      return StartedRun{{s, count, first == 0, done == total}, row, std::min(chunk_tokens, segments[s].end - row)};
    };
    const bool shares = total == 1 && 2 * segments[s].size() <= chunk_tokens;
    while (!shares && total - done >= block_chunks) {
      blocks.push_back(block_of({piece(block_chunks)}, segments, chunk_tokens));
    }
    if (done < total) rests.push_back(piece(total - done));
  }
  std::stable_sort(rests.begin(), rests.end(), [](const StartedRun& a, const StartedRun& b) {
    return std::tie(a.run.num_chunks, a.longest) > std::tie(b.run.num_chunks, b.longest);
  });
  std::vector<StartedRun> pieces;
  int64_t num_chunks = 0;
  for (size_t i = 0; i < rests.size(); ++i) {
    pieces.push_back(rests[i]);
    num_chunks += rests[i].run.num_chunks;
    const bool single = pieces.front().run.num_chunks == 1;
    const int64_t times = single ? std::min(kMostTimes, chunk_tokens / pieces.front().longest) : 1;
    const int64_t enough = times * block_chunks;
    if (num_chunks < enough && i + 1 < rests.size()) continue;
    blocks.push_back(block_of(std::exchange(pieces, {}), segments, chunk_tokens));
    num_chunks = 0;
  }
  return blocks;
}

}  // namespace evenspan::run::chunked
