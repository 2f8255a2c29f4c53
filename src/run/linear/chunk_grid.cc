#include "run/linear/chunk_grid.h"

#include <algorithm>
#include <numeric>

namespace evenspan::run::chunked {
namespace {

int64_t chunks_in(const RowRange& rows, int64_t chunk_tokens) {
  return (rows.size() + chunk_tokens - 1) / chunk_tokens;
}

// A run and the first of its rows.
struct Piece {
  Run run;
  int64_t row = 0;
};

Block block_of(std::vector<Piece> pieces, const std::vector<RowRange>& segments, int64_t chunk_tokens) {
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const Piece& a, const Piece& b) { return a.run.num_chunks > b.run.num_chunks; });
  Block block;
  for (const Piece& piece : pieces) block.runs.push_back(piece.run);
  block.waves.push_back(0);
  for (int64_t wave = 0; wave < pieces.front().run.num_chunks; ++wave) {
    for (const Piece& piece : pieces) {
      if (wave >= piece.run.num_chunks) break;
      const int64_t row = piece.row + wave * chunk_tokens;
      block.chunks.push_back({row, std::min(row + chunk_tokens, segments[piece.run.segment].end)});
    }
    block.waves.push_back(block.num_chunks());
  }
  return block;
}

}  // namespace

std::vector<Block> blocks_of(const std::vector<RowRange>& segments, int64_t chunk_tokens, int64_t block_chunks) {
  std::vector<size_t> order(segments.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return segments[a].size() > segments[b].size(); });
  std::vector<Block> blocks;
  std::vector<Piece> pieces;
  int64_t room = block_chunks;
  const auto close = [&] {
    if (!pieces.empty()) blocks.push_back(block_of(std::move(pieces), segments, chunk_tokens));
    pieces.clear();
    room = block_chunks;
  };
  for (const size_t s : order) {
    const int64_t total = chunks_in(segments[s], chunk_tokens);
    for (int64_t done = 0; done < total;) {
      const int64_t count = std::min(room, total - done);
      pieces.push_back({{s, count, done == 0, done + count == total}, segments[s].begin + done * chunk_tokens});
      done += count;
      room -= count;
      if (room == 0) close();
    }
  }
  close();
  return blocks;
}

}  // namespace evenspan::run::chunked
