// Every damaged plan is refused: plans by hand, and plans of every strategy.
#include <map>
#include <set>

#include "plan/mutation_kinds.h"
#include "plan/strategy/strategy.h"
#include "support/partial_plan_by_hand.h"
#include "support/random_draft.h"

namespace evenspan {
namespace {

using namespace plan;  // NOLINT
using test::Dice;
using test::Mutation;

// Sanitizers make everything some ten times slower; they look for other bugs than these numbers do.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kTimesByHand = 20;
constexpr int kTimesByStrategy = 2;
#else
constexpr int kTimesByHand = 300;
constexpr int kTimesByStrategy = 12;
#endif

std::vector<Mutation> all_mutations() {
  std::vector<Mutation> all;
  for (const auto kinds :
       {test::operation_mutations(), test::message_mutations(), test::block_mutations(), test::segment_mutations()}) {
    all.insert(all.end(), kinds.begin(), kinds.end());
  }
  return all;
}

// Damages copies of a proven plan; adds the kinds that found a place to `applied`.
void expect_all_refused(const LoweredPlan& plan, const std::string& name, int times, std::set<std::string>* applied) {
  ASSERT_EQ(test::to_text(verify(plan)), "") << name;
  for (const Mutation& mutation : all_mutations()) {
    for (int seed = 0; seed < times; ++seed) {
      Dice dice(static_cast<uint64_t>(seed));
      LoweredPlan damaged = plan;
      if (!mutation.damage(dice, damaged)) break;
      applied->insert(mutation.name);
      if (verify(damaged).empty()) {
        ADD_FAILURE() << name << ": accepted with \"" << mutation.name << "\", seed " << seed;
        break;
      }
    }
  }
}

// Rank 1 folds into a cleared partial, and both ranks exchange something in one exchange.
LoweredPlan plan_with_clear_and_crossing() {
  LoweredPlan plan = test::two_rank_plan();
  ForwardSegment& segment = test::body<Attend>(plan, 1, false, 1).items[0];
  segment.fold = true;
  auto& forward = plan.programs[1].phase(PhaseKind::forward).operations;
  forward.insert(forward.begin() + 1, test::operation(Clear{{segment.output, segment.lse}}));
  for (int32_t rank = 0; rank < 2; ++rank) {
    const test::BlockMaker make(plan, rank);
    const Span own = rank == 0 ? Span{0, 4} : Span{4, 8};
    const Span other = rank == 0 ? Span{4, 8} : Span{0, 4};
    RankProgram& programs = plan.programs[static_cast<size_t>(rank)];
    programs.buffer(BufferId::arena).bytes = 2048;
    // The queries of the other rank arrive and are used nowhere: harmless, unless somebody stalls.
    programs.phase(PhaseKind::forward)
        .operations.push_back(
            test::exchange(5, {{Rank(1 - rank), {make.home(TensorName::query, own)}}},
                           {{Rank(1 - rank), {make.arena(TensorName::query, Precision::input, other, 1536)}}}));
  }
  return plan;
}

TEST(Mutation, PlansByHand) {
  std::set<std::string> applied;
  expect_all_refused(test::one_rank_plan(6), "one rank", kTimesByHand, &applied);
  expect_all_refused(test::one_rank_plan(6, Mask{MaskKind::window, 3}, TileKind::band), "band", kTimesByHand, &applied);
  expect_all_refused(test::two_rank_plan(), "two ranks", kTimesByHand, &applied);
  expect_all_refused(test::two_rank_plan(ElementType::f32), "two ranks in float32", kTimesByHand, &applied);
  expect_all_refused(test::partial_plan(), "two ranks with a partial output", kTimesByHand, &applied);
  const size_t before = applied.size();
  // The extra exchange of this plan is of no use, so only some damage to it is harm.
  const LoweredPlan plan = plan_with_clear_and_crossing();
  ASSERT_EQ(test::to_text(verify(plan)), "");
  for (const Mutation& mutation : all_mutations()) {
    const std::string name = mutation.name;
    if (name != "clear dropped" && name != "receiving before sending everywhere") continue;
    Dice dice(1);
    LoweredPlan damaged = plan;
    ASSERT_TRUE(mutation.damage(dice, damaged));
    EXPECT_FALSE(verify(damaged).empty()) << name;
    applied.insert(name);
  }
  EXPECT_EQ(applied.size(), before + 2);
  for (const Mutation& mutation : all_mutations()) EXPECT_TRUE(applied.contains(mutation.name)) << mutation.name;
  EXPECT_GE(applied.size(), 20u);
}

TEST(Mutation, RandomDrafts) {
  std::set<std::string> applied;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    test::RandomDraft random(seed);
    const Request request = random.request(static_cast<ElementType>(seed % 4));
    const LoweredPlan plan = lower_all(*make_plan(request, random.draft(request)));
    expect_all_refused(plan, "seed " + std::to_string(seed), kTimesByStrategy / 2, &applied);
  }
  EXPECT_GE(applied.size(), 40u);
}

struct MutatedCase {
  const char* name;
  int32_t num_ranks, ranks_per_node;
  std::vector<Document> documents;
  AttentionShape shape;
  double bytes_per_second = 0;  // of links; slow ones make relays worth their rounds
};

std::vector<MutatedCase> mutated_cases() {
  const Mask causal;
  const Mask window{MaskKind::window, 6};
  return {
      {"long-tailed",
       4,
       0,
       {{70, causal}, {23, causal}, {9, causal}, {1, causal}, {2, causal}},
       {4, 2, 8, ElementType::bf16}},
      {"odd heads", 3, 0, {{41, causal}, {17, causal}}, {7, 1, 4, ElementType::f32}},
      {"masks",
       4,
       2,
       {{37, window}, {30, {MaskKind::full, 0}}, {28, {MaskKind::prefix, 9}}, {5, causal}},
       {8, 2, 4, ElementType::f16}},
      {"nodes", 8, 4, {{96, causal}, {33, window}, {12, causal}}, {4, 4, 4, ElementType::bf16}},
      {"slow links between nodes", 4, 2, {{96, causal}, {33, causal}}, {4, 1, 4, ElementType::bf16}, 1e3},
      {"more ranks than documents", 5, 0, {{3, causal}}, {2, 1, 4, ElementType::f64}},
      {"two ranks", 2, 0, {{20, causal}, {11, causal}}, {4, 1, 8, ElementType::bf16}},
  };
}

class MutationSweep : public ::testing::TestWithParam<std::string> {};

TEST_P(MutationSweep, EveryDamageIsRefused) {
  std::set<std::string> applied;
  for (const MutatedCase& c : mutated_cases()) {
    Request request;
    request.documents = Documents(c.documents);
    request.shape = c.shape;
    request.topology = make_topology(c.num_ranks, c.ranks_per_node);
    for (Level& level : request.topology.levels) level.bytes_per_second = c.bytes_per_second;
    request.options.strategy = GetParam();
    request.options.stripe_tokens = 8;
    expect_all_refused(lower_all(*make_plan(request)), GetParam() + ", " + c.name, kTimesByStrategy, &applied);
  }
  EXPECT_GE(applied.size(), 20u);
}

std::vector<std::string> strategy_names() {
  std::vector<std::string> names;
  for (const Strategy& strategy : strategies()) names.emplace_back(strategy.name);
  return names;
}

INSTANTIATE_TEST_SUITE_P(Strategies, MutationSweep, ::testing::ValuesIn(strategy_names()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace evenspan
