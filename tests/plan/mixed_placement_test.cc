// What the placement of `mixed` promises: tokens and attention even each for itself, and few documents cut.
#include "plan/solve/mixed_placement.h"

#include <gtest/gtest.h>

#include <set>

#include "../../bench/lengths.h"
#include "evenspan/plan/plan.h"
#include "plan/solve/cut_documents.h"
#include "plan/solve/rounds.h"

namespace evenspan::plan {
namespace {

Request request_of(Documents documents, int32_t ranks, int32_t ranks_per_node) {
  Request request;
  request.documents = std::move(documents);
  request.shape = AttentionShape{32, 8, 128, ElementType::bf16};
  request.topology = make_topology(ranks, ranks_per_node);
  request.options.strategy = "mixed";
  return request;
}

double max_over_mean(const std::vector<double>& values) {
  double most = 0, sum = 0;
  for (const double value : values) {
    most = std::max(most, value);
    sum += value;
  }
  return most * static_cast<double>(values.size()) / sum;
}

TEST(MixedPlacement, EvensTokensAndAttentionOfRealLengths) {
  for (const char* file : {"prolong_20000.txt", "wikipedia_20000.txt"}) {
    const std::vector<int64_t> lengths = bench::read_lengths(file);
    for (const auto& [ranks, tokens] : {std::pair<int32_t, int64_t>{8, 256 << 10}, {32, 1 << 20}, {64, 2 << 20}}) {
      for (uint64_t seed = 1; seed <= 5; ++seed) {
        const Request request = request_of(Documents(bench::draw_lengths(lengths, tokens, seed), Mask{}), ranks, 8);
        const Metrics metrics = measure(*make_plan(request));
        EXPECT_LE(metrics.tokens_max_over_mean, 1.01) << file << " " << ranks << " seed " << seed;
        EXPECT_LE(max_over_mean(metrics.pairs), 1.02) << file << " " << ranks << " seed " << seed;
        EXPECT_LE(metrics.work_max_over_mean, 1.01) << file << " " << ranks << " seed " << seed;
      }
    }
  }
}

TEST(MixedPlacement, LeavesEqualShortDocumentsWhole) {
  const Request request = request_of(Documents(std::vector<int64_t>(64, 500), Mask{}), 8, 8);
  const MixedPlacement placement = place_mixed(request, 8);
  EXPECT_TRUE(placement.shared[0].empty());
  for (const auto& spans : placement.homes) EXPECT_EQ(spans.size(), 8U);
  EXPECT_EQ(measure(*make_plan(request)).sent_bytes_total, 0);
}

TEST(MixedPlacement, CutsOneDocumentInMirroredChunks) {
  const Request request = request_of(Documents(std::vector<int64_t>{8000}, Mask{}), 4, 2);
  const MixedPlacement placement = place_mixed(request, 2);
  ASSERT_EQ(placement.shared.size(), 2U);
  // The first group has both ends, the second what lies between: the same tokens and nearly the same pairs.
  ASSERT_EQ(placement.shared[0].size(), 2U);
  ASSERT_EQ(placement.shared[1].size(), 1U);
  EXPECT_EQ(placement.shared[0][0].span.begin, 0);
  EXPECT_EQ(placement.shared[0][1].span.end, 8000);
  const Metrics metrics = measure(*make_plan(request));
  EXPECT_LE(metrics.tokens_max_over_mean, 1.001);
  EXPECT_LE(max_over_mean(metrics.pairs), 1.001);
}

// The rows of a chunk were once priced as if its mask were causal: of a full one the ranks got shares of 9,004 and
// 10,996 tokens on 2 ranks.
TEST(MixedPlacement, EvensDocumentsOfAnyMask) {
  for (const char* mask : {"causal", "full", "window:4000", "prefix:2000", "prefix:15000"}) {
    for (const std::vector<int64_t>& lengths :
         {std::vector<int64_t>{20000}, {20000, 7000, 3000}, {9000, 9000, 9000, 9000, 500, 300, 70}}) {
      for (const int32_t ranks : {1, 2, 4, 8, 16}) {
        const Request request = request_of(Documents(lengths, parse_mask(mask)), ranks, ranks);
        const Metrics metrics = measure(*make_plan(request));
        EXPECT_LE(metrics.tokens_max_over_mean, 1.01) << mask << ", " << lengths.size() << " on " << ranks;
        EXPECT_LE(metrics.work_max_over_mean, 1.01) << mask << ", " << lengths.size() << " on " << ranks;
      }
    }
  }
}

// Of 32 heads some of 15 ranks compute 3 and some 2: what is not shared evens that, and a document alone is not shared.
TEST(MixedPlacement, EvensRanksThatDoNotDivideTheHeads) {
  for (const char* mask : {"causal", "full"}) {
    for (const std::vector<int64_t>& lengths : {std::vector<int64_t>{20000}, {30000}, {5000, 5000, 5000}}) {
      for (const int32_t ranks : {3, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15}) {
        const Request request = request_of(Documents(lengths, parse_mask(mask)), ranks, ranks);
        const Metrics metrics = measure(*make_plan(request));
        EXPECT_LE(metrics.tokens_max_over_mean, 1.01) << mask << ", " << lengths[0] << " on " << ranks;
        EXPECT_LE(metrics.work_max_over_mean, 1.01) << mask << ", " << lengths[0] << " on " << ranks;
      }
    }
  }
}

TEST(MixedPlacement, CutsAsFewDocumentsAsItCan) {
  std::vector<int64_t> lengths(200, 1000);
  lengths[17] = 60000;  // the pairs of three groups
  const Request request = request_of(Documents(lengths, Mask{}), 8, 2);
  const MixedPlacement placement = place_mixed(request, 2);
  std::set<int64_t> in_several;
  std::vector<int32_t> num_groups(lengths.size(), 0);
  for (size_t g = 0; g < placement.shared.size(); ++g) {
    std::set<int64_t> here;
    for (size_t r = 2 * g; r < 2 * g + 2; ++r) {
      for (const PlacedSpan& placed : placement.homes[r]) here.insert(placed.document.value);
    }
    for (const int64_t d : here) {
      if (++num_groups[static_cast<size_t>(d)] > 1) in_several.insert(d);
    }
  }
  EXPECT_EQ(in_several, std::set<int64_t>{17});
}

// Groups with room for nothing but rounding once kept the solver busy for ever.
TEST(MixedPlacement, PlacesFewDocumentsOnManyRanks) {
  for (const int32_t ranks : {16, 72, 256}) {
    for (const std::vector<int64_t>& lengths : {std::vector<int64_t>{5000, 100}, {1}, {70000}, {900, 900, 900, 7}}) {
      for (const int32_t group : {1, 2, 8}) {
        Request request = request_of(Documents(lengths, Mask{}), ranks, 8);
        request.options.ranks_per_group = group;
        EXPECT_EQ(make_plan(request)->placement.num_ranks(), ranks);
      }
    }
  }
}

// Tokens are all that costs: they alone are even.
TEST(MixedPlacement, TakesPairsThatCostNothing) {
  std::vector<int64_t> lengths(20, 300);
  lengths[3] = 9000;
  Request request = request_of(Documents(lengths, Mask{}), 4, 2);
  request.cost = CostModel{0, 1};
  EXPECT_LE(measure(*make_plan(request)).tokens_max_over_mean, 1.01);
}

TEST(RemoteRounds, IsOneWhereLinksAreUnknown) {
  Request request = request_of(Documents(std::vector<int64_t>{100000}, Mask{}), 16, 8);
  EXPECT_EQ(num_remote_rounds(request, {100000, 8, 1e9}), 1);
  EXPECT_EQ(most_remote_rounds(request), 1);
}

// Transfers of 4 seconds and nothing else that depends on the rounds but 1 second for each: 2 are best, 4 / 2 + 2.
TEST(RemoteRounds, TradesTheFirstTransferForLaunches) {
  Request request = request_of(Documents(std::vector<int64_t>{100000}, Mask{}), 16, 8);
  request.cost.round_seconds = 1;
  request.topology.levels.back().bytes_per_second = 1e6;
  const int64_t keys = 1000000 / (2 * 8 * 128 * 2);  // a second of forward
  EXPECT_EQ(num_remote_rounds(request, {keys, 8, 0}), 2);
  request.cost.round_seconds = 1e-9;
  EXPECT_EQ(num_remote_rounds(request, {keys, 8, 0}), most_remote_rounds(request));
  request.cost.round_seconds = 100;
  EXPECT_EQ(num_remote_rounds(request, {keys, 8, 0}), 1);
}

TEST(CostModel, SlowsShortDocumentsDown) {
  CostModel cost;
  EXPECT_EQ(cost.slowdown(5), 1);
  cost.slowdowns = {{100, 3}, {200, 2}, {400, 1}};
  EXPECT_EQ(cost.slowdown(1), 3);
  EXPECT_EQ(cost.slowdown(100), 3);
  EXPECT_EQ(cost.slowdown(150), 2.5);
  EXPECT_EQ(cost.slowdown(300), 1.5);
  EXPECT_EQ(cost.slowdown(1000), 1);
}

// A document that ends inside a tile costs as much as if it ended with it.
TEST(CostModel, CountsWholeTiles) {
  CostModel cost{2, 1};
  cost.slowdowns = {{100, 3}, {200, 2}, {400, 1}};
  cost.tile = 100;
  for (const auto& [length, whole, factor] :
       {std::tuple{1, 100, 3.0}, {99, 100, 3.0}, {100, 100, 3.0}, {101, 200, 2.0}}) {
    EXPECT_DOUBLE_EQ(cost.slowdown(length) * length * (length + 1), factor * whole * (whole + 1)) << length;
  }
  EXPECT_DOUBLE_EQ(cost.rectangle_seconds(350, 101), 2 * 400.0 * 200 * 1);
  EXPECT_DOUBLE_EQ(cost.rectangle_seconds(1, 1000), 2 * 100.0 * 1000 * 2);
}

TEST(MirroredChunks, AreCutBetweenTilesWhereTheyAreLong) {
  const DocumentId id(0);
  for (const int64_t length : {100, 3199, 3200, 5003}) {
    const auto chunks = mirrored_chunks(id, length, {0.31, 0.69}, 100);
    std::vector<Span> all;
    for (const auto& spans : chunks) {
      for (const PlacedSpan& placed : spans) {
        all.push_back(placed.span);
        if (length < 3200) continue;
        EXPECT_EQ(placed.span.begin % 100, 0);
        EXPECT_TRUE(placed.span.end % 100 == 0 || placed.span.end == length);
      }
    }
    EXPECT_EQ(union_of(all), (std::vector<Span>{{0, length}})) << length;
    EXPECT_NEAR(static_cast<double>(all[0].size()), 0.155 * static_cast<double>(length), length < 3200 ? 1 : 100);
  }
}

// Where kernels are no slower on small tiles, the tiles of a chunk cost what its pairs cost, whichever the mask allows.
TEST(ChunkAttention, CostsItsPairs) {
  for (const char* mask : {"causal", "full", "window:120", "window:400", "prefix:350", "prefix:700"}) {
    const Request request = request_of(Documents(std::vector<int64_t>{1000}, parse_mask(mask)), 4, 2);
    const PlacedSpan rows{DocumentId(0), Span{300, 450}};
    const double pairs = static_cast<double>(num_pairs(request.documents[DocumentId(0)], rows.span));
    EXPECT_DOUBLE_EQ(chunk_attention_seconds(request, rows, {{0, 100}, {100, 300}, {300, 450}, {450, 1000}}),
                     request.cost.pair_seconds * pairs)
        << mask;
  }
}

}  // namespace
}  // namespace evenspan::plan
