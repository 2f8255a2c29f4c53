// Proof 1 and the shape of segments: by hand, and against counting single pairs.
#include <random>

#include "plan/verify/contributions.h"
#include "support/plan_by_hand.h"

namespace evenspan {
namespace {

using namespace plan;  // NOLINT
using test::body;
using test::expect_refuted;

TEST(VerifyCoverage, MissingSegment) {
  LoweredPlan plan = test::two_rank_plan();
  plan.programs[1]
      .phase(PhaseKind::forward)
      .operations.erase(plan.programs[1].phase(PhaseKind::forward).operations.begin() + 2);
  expect_refuted(plan, Proof::coverage, "document 0, heads [0, 4), query 4: the segment of query rows [4, 8)");
  plan = test::two_rank_plan();
  body<Attend>(plan, 0, false, 1).items.clear();
  expect_refuted(plan, Proof::coverage, "query 0: no segment sees keys [0, 1) of the allowed [0, 1)");
}

TEST(VerifyCoverage, MissingSegmentInBackward) {
  LoweredPlan plan = test::two_rank_plan();
  body<AttendGradient>(plan, 1, true, 2).items.clear();
  expect_refuted(plan, Proof::coverage, "rank 1 backward operation 1: document 0");
}

TEST(VerifyCoverage, DoubledSegment) {
  LoweredPlan plan = test::two_rank_plan();
  auto& segments = body<Attend>(plan, 1, false, 2).items;
  segments.push_back(segments[0]);
  expect_refuted(plan, Proof::coverage, "rank 1 forward operation 2: document 0, heads [0, 4), query 4");
  expect_refuted(plan, Proof::coverage, "sees keys [0, 4), which sees again keys [0, 4)");
}

TEST(VerifyCoverage, MoreThanTheMask) {
  LoweredPlan plan = test::one_rank_plan(5);
  body<Attend>(plan, 0, false, 0).items[0].kind = TileKind::full;
  expect_refuted(plan, Proof::coverage, "query 0");
  expect_refuted(plan, Proof::coverage, "sees keys [0, 5)");
  plan = test::one_rank_plan(5, Mask{MaskKind::window, 2}, TileKind::band);
  body<Attend>(plan, 0, false, 0).items[0].window = 3;
  expect_refuted(plan, Proof::coverage, "of the allowed [1, 3)");
}

TEST(VerifyCoverage, SegmentsThatKernelsDoNotTake) {
  const auto refuted = [](auto damage, const std::string& text) {
    LoweredPlan plan = test::two_rank_plan();
    damage(body<Attend>(plan, 1, false, 2).items[0]);
    expect_refuted(plan, Proof::coverage, text);
  };
  refuted([](ForwardSegment& s) { s.kind = TileKind::causal; }, "is causal and not square");
  refuted([](ForwardSegment& s) { s.kind = TileKind::window; }, "has window 0");
  refuted([](ForwardSegment& s) { s.kind = TileKind::window, s.window = 4; }, "has no key for query 7");
  refuted([](ForwardSegment& s) { s.kind = TileKind::band, s.window = 3; }, "has no key for query 7");
  refuted([](ForwardSegment& s) { s.key.heads = s.value.heads = HeadRange{0, 1}; }, "needs kv heads [0, 2)");
  refuted(
      [](ForwardSegment& s) {
        s.query.heads = s.output.heads = s.lse.heads = HeadRange{1, 4};
        s.query.offset_bytes += 16;
      },
      "mixes parts of kv groups");
  refuted([](ForwardSegment& s) { s.key.rows.end = 3; }, "beside key");
  refuted([](ForwardSegment& s) { s.output.rows.end = 7; }, "beside query");
  refuted([](ForwardSegment& s) { s.lse.heads.end = 3; }, "beside query");
  refuted([](ForwardSegment& s) { s.value.tensor = TensorName::key; }, "as its value");
  refuted([](ForwardSegment& s) { s.key.precision = Precision::accumulation; }, "as its key of the input type");
  LoweredPlan plan = test::one_rank_plan(5, Mask{MaskKind::window, 2}, TileKind::band);
  plan.request.documents = Documents({Document{5, {MaskKind::window, 2}}, Document{5, {MaskKind::window, 2}}});
  plan.placement = Placement(plan.request.documents, {{{DocumentId(0), Span{0, 5}}, {DocumentId(1), Span{0, 5}}}});
  const test::BlockMaker make(plan, 0);
  ForwardSegment& segment = body<Attend>(plan, 0, false, 0).items[0];
  segment.key = make.home(TensorName::key, Span{0, 5}, 1);
  segment.value = make.home(TensorName::value, Span{0, 5}, 1);
  expect_refuted(plan, Proof::coverage, "crosses a border between documents");
}

// Random segments of one document, judged by counting pairs.
class CoverageSweep : public ::testing::TestWithParam<MaskKind> {};

std::vector<Tile> random_tiling(std::mt19937& random, const Document& document, int32_t num_heads) {
  const auto pick = [&random](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  std::vector<Tile> tiles;
  const auto cut = [&](int64_t length) {
    std::vector<int64_t> cuts{0, length};
    for (int64_t i = pick(0, 3); i > 0; --i) cuts.push_back(pick(0, length));
    std::sort(cuts.begin(), cuts.end());
    return cuts;
  };
  const std::vector<int64_t> heads = cut(num_heads);
  for (size_t h = 0; h + 1 < heads.size(); ++h) {
    const HeadRange range{static_cast<int32_t>(heads[h]), static_cast<int32_t>(heads[h + 1])};
    const auto queries = cut(document.length);
    for (size_t q = 0; q + 1 < queries.size(); ++q) {
      const auto keys = cut(document.length);
      for (size_t k = 0; k + 1 < keys.size(); ++k) {
        const Span rows{queries[q], queries[q + 1]};
        const Span columns{keys[k], keys[k + 1]};
        if (rows.empty() || columns.empty() || range.empty()) continue;
        append_mask_tiles(document, DocumentId(0), rows, columns, range, &tiles);
      }
    }
  }
  return tiles;
}

bool covers_each_pair_once(const std::vector<Tile>& tiles, const Document& document, int32_t num_heads) {
  for (int32_t head = 0; head < num_heads; ++head) {
    for (int64_t q = 0; q < document.length; ++q) {
      std::vector<int> seen(static_cast<size_t>(document.length), 0);
      for (const Tile& tile : tiles) {
        if (!tile.heads.contains(head) || !tile.queries.contains(q)) continue;
        const Span keys = tile_keys(tile, q, document.mask.extent);
        for (int64_t k = keys.begin; k < keys.end; ++k) ++seen[static_cast<size_t>(k)];
      }
      const Span allowed = allowed_keys(document, q);
      for (int64_t k = 0; k < document.length; ++k) {
        if (seen[static_cast<size_t>(k)] != (allowed.contains(k) ? 1 : 0)) return false;
      }
    }
  }
  return true;
}

// A plan of one rank with these tiles in both directions; only its coverage is asked for.
LoweredPlan plan_of(const std::vector<Tile>& tiles, const Document& document) {
  LoweredPlan plan;
  plan.request = test::small_request({document.length}, 1, document.mask);
  plan.request.shape.num_kv_heads = 4;
  plan.programs = test::empty_programs(1);
  Attend attend;
  AttendGradient gradient;
  for (const Tile& tile : tiles) {
    Segment segment;
    segment.kind = tile.kind;
    segment.window = document.mask.extent;
    segment.query.rows = tile.queries;
    segment.query.heads = tile.heads;
    segment.key.rows = tile.keys;
    attend.items.push_back({segment, {}, {}, false});
    gradient.items.push_back({segment, {}, {}, {}, {}, {}, {}});
  }
  plan.programs[0].phase(PhaseKind::forward).operations = {test::operation(attend)};
  plan.programs[0].phase(PhaseKind::backward).operations = {test::operation(gradient)};
  return plan;
}

bool proves_coverage(const LoweredPlan& plan) {
  try {
    proofs::prove_coverage(plan);
    return true;
  } catch (const proofs::Refuted&) {
    return false;
  }
}

TEST_P(CoverageSweep, AgreesWithCountingPairs) {
  std::mt19937 random(7);
  const auto pick = [&random](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  int num_damaged = 0;
  for (int trial = 0; trial < 3000; ++trial) {
    const int64_t length = pick(1, 24);
    const bool bounded = GetParam() == MaskKind::window || GetParam() == MaskKind::prefix;
    const Document document{length, Mask{GetParam(), bounded ? pick(1, length + 2) : 0}};
    std::vector<Tile> tiles = random_tiling(random, document, 4);
    ASSERT_TRUE(proves_coverage(plan_of(tiles, document)));
    Tile& tile = tiles[static_cast<size_t>(pick(0, static_cast<int64_t>(tiles.size()) - 1))];
    switch (pick(0, 6)) {
      case 0:
        tile.queries.begin = pick(0, tile.queries.begin);
        break;
      case 1:
        tile.queries.end = pick(tile.queries.begin + 1, length);
        break;
      case 2:
        tile.keys.begin = pick(0, tile.keys.end - 1);
        break;
      case 3:
        tile.keys.end = pick(tile.keys.begin + 1, length);
        break;
      case 4:
        tile.heads = tile.heads.begin > 0 ? HeadRange{tile.heads.begin - 1, tile.heads.end} : tile.heads;
        break;
      case 5:
        tile.kind = static_cast<TileKind>(pick(0, 3));
        break;
      default:
        tiles.push_back(Tile(tile));
        break;
    }
    const bool right = covers_each_pair_once(tiles, document, 4);
    num_damaged += right ? 0 : 1;
    const bool windowed = document.mask.kind == MaskKind::window;
    // Others are refused before: kinds without a window to see by, and rows without a key.
    const bool sound = std::all_of(tiles.begin(), tiles.end(), [&](const Tile& t) {
      if (!windowed && (t.kind == TileKind::window || t.kind == TileKind::band)) return false;
      for (int64_t q = t.queries.begin; q < t.queries.end; ++q) {
        if (tile_keys(t, q, document.mask.extent).empty()) return false;
      }
      return true;
    });
    if (sound) {
      ASSERT_EQ(proves_coverage(plan_of(tiles, document)), right) << "trial " << trial;
    }
  }
  EXPECT_GT(num_damaged, 500);
}

INSTANTIATE_TEST_SUITE_P(Masks, CoverageSweep,
                         ::testing::Values(MaskKind::causal, MaskKind::full, MaskKind::window, MaskKind::prefix));

TEST(FinishedSets, AgreeWithCellByCell) {
  std::mt19937 random(11);
  const auto pick = [&random](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  constexpr int64_t kRows = 9;
  constexpr int32_t kHeads = 5;
  for (int trial = 0; trial < 500; ++trial) {
    proofs::FinishedSets sets(1);
    std::vector<proofs::Contributions> cells(kRows * kHeads);
    for (int64_t part = pick(0, 6); part > 0; --part) {
      const int64_t begin = pick(0, kRows - 1);
      const int64_t first = pick(0, kHeads - 1);
      const Span rows{begin, pick(begin + 1, kRows)};
      const HeadRange heads{static_cast<int32_t>(first), static_cast<int32_t>(pick(first + 1, kHeads))};
      const auto own = proofs::contribution(static_cast<size_t>(part));
      sets.add(DocumentId(0), rows, heads, own);
      for (int64_t r = rows.begin; r < rows.end; ++r) {
        for (int32_t h = heads.begin; h < heads.end; ++h) cells[static_cast<size_t>(r * kHeads + h)] += own;
      }
    }
    sets.seal();
    for (int probe = 0; probe < 20; ++probe) {
      const int64_t begin = pick(0, kRows - 1);
      const int64_t first = pick(0, kHeads - 1);
      const Span rows{begin, pick(begin + 1, kRows)};
      const HeadRange heads{static_cast<int32_t>(first), static_cast<int32_t>(pick(first + 1, kHeads))};
      const auto set = cells[static_cast<size_t>(rows.begin * kHeads + heads.begin)];
      if (set.count == 0) continue;  // nothing is never finished
      bool same = true;
      for (int64_t r = rows.begin; r < rows.end; ++r) {
        for (int32_t h = heads.begin; h < heads.end; ++h) same &= cells[static_cast<size_t>(r * kHeads + h)] == set;
      }
      ASSERT_EQ(sets.is_finished(DocumentId(0), rows, heads, set), same) << "trial " << trial;
    }
  }
}

}  // namespace
}  // namespace evenspan
