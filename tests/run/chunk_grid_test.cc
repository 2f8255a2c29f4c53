// Segments in blocks of chunks: all rows once, and little else.
#include "run/linear/chunk_grid.h"

#include <gtest/gtest.h>

#include <random>

namespace evenspan::run::chunked {
namespace {

constexpr int64_t kChunkTokens = 64, kBlockChunks = 4;

std::vector<RowRange> segments_of(const std::vector<int64_t>& lengths) {
  std::vector<RowRange> segments;
  int64_t row = 0;
  for (const int64_t length : lengths) {
    segments.push_back({row, row + length});
    row += length;
  }
  return segments;
}

int64_t padded_rows(const std::vector<ChunkBlock>& blocks) {
  int64_t rows = 0;
  for (const ChunkBlock& block : blocks) rows += block.num_chunks() * block.chunk_tokens;
  return rows;
}

// Every document of 4 tokens cost a whole chunk: 16,000 of them sixteen times what one with as many tokens does.
TEST(ChunkGrid, ShortSegmentsCostTheirRows) {
  for (const int64_t block_chunks : {int64_t{1}, kBlockChunks}) {
    for (const int64_t length : {1, 4, 17}) {
      const std::vector<int64_t> lengths(16'000, length);
      const auto blocks = blocks_of(segments_of(lengths), kChunkTokens, block_chunks);
      EXPECT_EQ(padded_rows(blocks), 16'000 * length);
      // Each costs the calls of its steps: as many rows in each as in one of long segments, or 16 times the chunks.
      const int64_t chunks = block_chunks * std::min<int64_t>(16, kChunkTokens / length);
      EXPECT_EQ(static_cast<int64_t>(blocks.size()), (16'000 + chunks - 1) / chunks) << length;
    }
  }
}

TEST(ChunkGrid, EveryRowIsInOneChunkAndPaddingIsLittle) {
  std::mt19937 random(1);
  std::vector<int64_t> lengths;
  for (int i = 0; i < 5000; ++i) lengths.push_back(1 + static_cast<int64_t>(random() % (i % 100 == 0 ? 1000 : 64)));
  const std::vector<RowRange> segments = segments_of(lengths);
  const auto blocks = blocks_of(segments, kChunkTokens, kBlockChunks);
  std::vector<int> seen(static_cast<size_t>(segments.back().end), 0);
  int64_t single_rows = 0;
  std::vector<ChunkBlock> single;
  for (const ChunkBlock& block : blocks) {
    for (const RowRange& chunk : block.chunks) {
      EXPECT_LE(chunk.size(), block.chunk_tokens);
      for (int64_t row = chunk.begin; row < chunk.end; ++row) ++seen[static_cast<size_t>(row)];
    }
    if (block.num_waves() > 1) continue;
    single.push_back(block);
    for (const RowRange& chunk : block.chunks) single_rows += chunk.size();
  }
  EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), segments.back().end);
  EXPECT_LE(padded_rows(single), single_rows + single_rows / 20);
}

}  // namespace
}  // namespace evenspan::run::chunked
