// Plans of layers with other masks on the placement of a batch's plan.
#include <algorithm>
#include <random>

#include "evenspan/core/error.h"
#include "evenspan/plan/text.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "plan/strategy/parts.h"
#include "plan/strategy/strategy.h"
#include "support/plan_by_hand.h"
#include "support/random_draft.h"

namespace evenspan::plan {
namespace {

Request request_of(const std::vector<int64_t>& lengths, const std::string& strategy, int32_t num_ranks) {
  Request request;
  request.documents = Documents(lengths, Mask{});
  request.shape = {8, 4, 16, ElementType::bf16};
  request.topology = make_topology(num_ranks, std::max(1, num_ranks / 2));
  request.options.strategy = strategy;
  return request;
}

Documents windows(const Documents& documents, int64_t window) {
  std::vector<Document> narrowed = documents.all();
  for (Document& document : narrowed) document.mask = {MaskKind::window, window};
  return Documents(std::move(narrowed));
}

void expect_proven(const Plan& plan, const std::string& what) {
  const LoweredPlan lowered = lower_all(plan);
  ASSERT_EQ(test::to_text(verify(lowered)), "") << what;
  const std::string text = print(lowered);
  const LoweredPlan read = parse(text);
  ASSERT_EQ(read.programs, lowered.programs) << what;
  ASSERT_EQ(print(read), text) << what;
  int64_t sent = 0;
  for (const RankProgram& program : lowered.programs)
    sent += sent_bytes(program.phase(PhaseKind::forward), plan.request.shape);
  ASSERT_EQ(sent, measure(plan).sent_bytes_total) << what;
}

// Keys and values of a document whose queries are at home move once to each rank that needs them.
int64_t needed_bytes(const Plan& plan) {
  const AttentionShape& shape = plan.request.shape;
  return remote_key_tokens(plan.request, plan.placement) * 2 * shape.num_kv_heads * shape.head_dim *
         num_bytes(shape.element);
}

TEST(PlanOn, WindowsOnThePlacementOfEveryStrategy) {
  const std::vector<int64_t> lengths = {3000, 700, 700, 260, 90, 3, 1};
  for (const Strategy& strategy : strategies()) {
    for (const int32_t ranks : {1, 3, 4, 8}) {
      const auto base = make_plan(request_of(lengths, std::string(strategy.name), ranks));
      for (const int64_t window : {1, 5, 200, 700, 5000}) {
        const std::string what = join_text(strategy.name, " on ", ranks, " ranks, window ", window);
        const auto plan = make_plan_on(*base, windows(base->request.documents, window));
        EXPECT_EQ(plan->placement, base->placement) << what;
        expect_proven(*plan, what);
      }
    }
  }
}

// No more than the window of a rank's first query travels for each of its spans.
TEST(PlanOn, OnlyKeysInTheWindowTravel) {
  for (const char* strategy : {"sequence_aware", "mixed", "ulysses", "zigzag", "disaggregated", "token_ring"}) {
    const auto base = make_plan(request_of({5000, 4000, 3000}, strategy, 8));
    const auto plan = make_plan_on(*base, windows(base->request.documents, 64));
    EXPECT_EQ(measure(*plan).sent_bytes_total, needed_bytes(*plan)) << strategy;
    int64_t num_spans = 0;
    for (int32_t r = 0; r < 8; ++r) num_spans += static_cast<int64_t>(plan->placement.spans(Rank(r)).size());
    EXPECT_LE(measure(*plan).sent_bytes_total, num_spans * 63 * 2 * 4 * 16 * 2) << strategy;
  }
}

TEST(PlanOn, DocumentsThatSeeTheSameKeepTheirTiles) {
  for (const Strategy& strategy : strategies()) {
    const auto base = make_plan(request_of({3000, 200, 90, 150}, std::string(strategy.name), 4));
    const auto plan = make_plan_on(*base, windows(base->request.documents, 200));
    const auto short_ones = [](const Plan& of) {
      std::vector<Tile> tiles;
      for (const Task& task : of.tasks) {
        if (task.tile.document != DocumentId(0)) tiles.push_back(task.tile);
      }
      std::sort(tiles.begin(), tiles.end());
      return tiles;
    };
    EXPECT_EQ(short_ones(*plan), short_ones(*base)) << strategy.name;
    const auto same = make_plan_on(*base, windows(base->request.documents, 3000));
    EXPECT_EQ(same->tasks, base->tasks) << strategy.name;
    EXPECT_EQ(same->moves, base->moves) << strategy.name;
  }
}

TEST(PlanOn, PlansOfOneBatchDifferInMasksAndTiles) {
  const auto base = make_plan(request_of({3000, 700}, "mixed", 4));
  const auto plan = make_plan_on(*base, windows(base->request.documents, 64));
  for (const size_t part : {0, 2, 3, 4}) EXPECT_EQ(plan->hash.parts[part], base->hash.parts[part]) << part;
  for (const size_t part : {1, 5}) EXPECT_NE(plan->hash.parts[part], base->hash.parts[part]) << part;
}

// From a window's plan one of all keys can be made as well, and any mask has a plan on any placement.
TEST(PlanOn, AnyMaskOnAnyPlacement) {
  for (uint64_t seed = 0; seed < 1500; ++seed) {
    test::RandomDraft random(seed);
    const Request request = random.request(static_cast<ElementType>(seed % 4));
    const auto base = make_plan(request, random.draft(request));
    std::vector<Document> documents = request.documents.all();
    std::mt19937_64 masks(seed);
    for (Document& document : documents) {
      constexpr Mask kMasks[] = {{MaskKind::causal, 0}, {MaskKind::full, 0},    {MaskKind::window, 7},
                                 {MaskKind::prefix, 3}, {MaskKind::window, 60}, {MaskKind::window, 1}};
      document.mask = kMasks[masks() % 6];
    }
    const auto plan = make_plan_on(*base, Documents(std::move(documents)));
    EXPECT_EQ(plan->placement, base->placement);
    expect_proven(*plan, join_text("seed ", seed));
  }
}

TEST(PlanOn, KeepsTheMemoryBudgetOrSaysSo) {
  Request request = request_of({3000, 700}, "ulysses", 4);
  const auto bytes = [](const Plan& plan) {
    int64_t most = 0;
    for (const RankProgram& program : lower_all(plan).programs) {
      most = std::max(most, program.bytes(Lifetime::phase) + program.bytes(Lifetime::step));
    }
    return most;
  };
  request.options.memory_budget_bytes = bytes(*make_plan(request));
  const auto budgeted = make_plan(request);
  EXPECT_LE(bytes(*make_plan_on(*budgeted, windows(request.documents, 64))), request.options.memory_budget_bytes);

  // Sums of windows' tiles lie in the arena, where all keys of a whole document need none.
  Request tight = request_of({3000, 700}, "local", 2);
  tight.options.memory_budget_bytes = bytes(*make_plan(tight));
  const auto local = make_plan(tight);
  try {
    make_plan_on(*local, windows(tight.documents, 64));
    FAIL() << "no plan of windows fits";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::resource);
    EXPECT_THAT(error.what(), testing::HasSubstr("more than the memory budget of"));
  }
}

TEST(PlanOn, OnlyMasksMayDiffer) {
  const auto base = make_plan(request_of({30, 7}, "mixed", 2));
  const auto refused = [&](const std::vector<int64_t>& lengths) {
    try {
      make_plan_on(*base, Documents(lengths, Mask{}));
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_THAT(refused({30}), testing::HasSubstr("the placement is of 2 documents, there are 1 masks"));
  EXPECT_THAT(refused({30, 8}), testing::HasSubstr("document 1 has 8 tokens, and 7 in the plan"));
}

TEST(AllowSamePairs, ComparesWhatMasksAllow) {
  const auto same = [](int64_t length, Mask a, Mask b) { return allow_same_pairs({length, a}, {length, b}); };
  const Mask causal, full{MaskKind::full, 0};
  EXPECT_TRUE(same(9, causal, {MaskKind::window, 9}));
  EXPECT_FALSE(same(9, causal, {MaskKind::window, 8}));
  EXPECT_TRUE(same(9, {MaskKind::window, 12}, {MaskKind::window, 9}));
  EXPECT_FALSE(same(9, {MaskKind::window, 2}, {MaskKind::window, 3}));
  EXPECT_TRUE(same(9, causal, {MaskKind::prefix, 1}));
  EXPECT_TRUE(same(9, full, {MaskKind::prefix, 9}));
  EXPECT_FALSE(same(9, full, causal));
  EXPECT_TRUE(same(1, full, {MaskKind::window, 1}));
  for (int64_t length = 1; length < 12; ++length) {  // against the pairs themselves
    std::vector<Mask> masks = {causal, full};
    for (int64_t extent = 0; extent < 14; ++extent) {
      masks.push_back({MaskKind::prefix, extent});
      if (extent > 0) masks.push_back({MaskKind::window, extent});
    }
    for (const Mask& a : masks) {
      for (const Mask& b : masks) {
        bool equal = true;
        for (int64_t q = 0; q < length; ++q) equal &= allowed_keys({length, a}, q) == allowed_keys({length, b}, q);
        EXPECT_EQ(same(length, a, b), equal) << length << " " << to_string(a) << " " << to_string(b);
      }
    }
  }
}

}  // namespace
}  // namespace evenspan::plan
