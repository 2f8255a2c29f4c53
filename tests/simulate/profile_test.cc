#include "evenspan/simulate/profile.h"

#include <functional>
#include <string>

#include "evenspan/core/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scenarios.h"

namespace evenspan::simulate {
namespace {

using plan::TileKind;
using testing::HasSubstr;

// Tiles of 4; a grid of 4, 8 queries by 4, 12 keys.
AttentionTimes grid() {
  AttentionTimes times;
  times.head_dim = 8;
  times.elements = {plan::ElementType::bf16};
  times.tile = 4;
  times.queries = {4, 8};
  times.keys = {4, 12};
  times.forward.seconds = {1, 2, 1.5, 3};
  times.backward.seconds = {2, 4, 3, 6};
  return times;
}

double forward(const AttentionTimes& times, TileKind kind, int64_t queries, int64_t keys, int32_t heads = 1) {
  return segment_seconds(times, Pass::forward, kind, queries, keys, heads);
}

TEST(SegmentSeconds, AreTheGridsAtItsPoints) {
  const AttentionTimes times = grid();
  EXPECT_DOUBLE_EQ(forward(times, TileKind::full, 4, 4), 1);
  EXPECT_DOUBLE_EQ(forward(times, TileKind::full, 4, 12), 2);
  EXPECT_DOUBLE_EQ(forward(times, TileKind::full, 8, 4), 1.5);
  EXPECT_DOUBLE_EQ(forward(times, TileKind::full, 8, 12), 3);
  EXPECT_DOUBLE_EQ(segment_seconds(times, Pass::backward, TileKind::full, 8, 12, 1), 6);
}

TEST(SegmentSeconds, CountWholeTilesAndHeads) {
  const AttentionTimes times = grid();
  EXPECT_DOUBLE_EQ(forward(times, TileKind::full, 1, 3), 1);
  EXPECT_DOUBLE_EQ(forward(times, TileKind::full, 5, 9), 3);
  EXPECT_DOUBLE_EQ(forward(times, TileKind::full, 5, 9, 6), 18);
}

TEST(SegmentSeconds, InterpolateBetweenPointsAndGoOnBeyond) {
  AttentionTimes times = grid();
  EXPECT_DOUBLE_EQ(forward(times, TileKind::full, 4, 8), 1.5);
  EXPECT_DOUBLE_EQ(forward(times, TileKind::full, 8, 8), 2.25);
  EXPECT_DOUBLE_EQ(forward(times, TileKind::full, 4, 20), 3);
  EXPECT_DOUBLE_EQ(forward(times, TileKind::full, 16, 12), 5);
  times.tile = 1;
  EXPECT_DOUBLE_EQ(forward(times, TileKind::full, 2, 4), 0.5) << "no rows take no time";
  EXPECT_DOUBLE_EQ(forward(times, TileKind::full, 4, 1), 0.25);
}

TEST(SegmentSeconds, ACausalSquareCostsTheTilesThatItTouches) {
  AttentionTimes times = grid();
  // Constant rate: 16 pairs a second.
  times.queries = {4};
  times.keys = {4};
  times.forward.seconds = {1};
  EXPECT_DOUBLE_EQ(forward(times, TileKind::full, 16, 16), 16);
  EXPECT_DOUBLE_EQ(forward(times, TileKind::causal, 16, 16), 4 + 3 + 2 + 1);
  EXPECT_DOUBLE_EQ(forward(times, TileKind::causal, 4, 4), 1);
  EXPECT_DOUBLE_EQ(forward(times, TileKind::band, 16, 16), 16);
  EXPECT_DOUBLE_EQ(forward(times, TileKind::window, 16, 16), 16);
}

TEST(SegmentSeconds, OfMeasuredSquaresGoByTheirTimePerRow) {
  AttentionTimes times = grid();
  times.tile = 1;
  times.squares = {4, 8, 16};
  const auto of = [](double n) { return 2 * n + 0.5 * n * n; };
  times.forward.square_seconds = {of(4), of(8), of(16)};
  times.forward.segment_seconds = 3;
  for (const int64_t n : {4, 5, 8, 11, 16, 40}) {
    EXPECT_DOUBLE_EQ(forward(times, TileKind::causal, n, n, 2), 3 + 2 * of(static_cast<double>(n))) << n;
  }
  EXPECT_DOUBLE_EQ(forward(times, TileKind::causal, 1, 1), 3 + of(4) / 4) << "constant per row below the first";
  EXPECT_DOUBLE_EQ(forward(times, TileKind::full, 4, 12), 3 + 2) << "other kinds have the grid's";
  times.squares = {4};
  times.forward.square_seconds = {8};
  EXPECT_DOUBLE_EQ(forward(times, TileKind::causal, 10, 10), 3 + 20) << "one square";
}

TEST(SegmentSeconds, HaveAPartOfTheirOwn) {
  AttentionTimes times = grid();
  times.forward.segment_seconds = 10;
  EXPECT_DOUBLE_EQ(forward(times, TileKind::full, 4, 4, 3), 13);
}

TEST(CostModel, IsOfTheWholeModel) {
  Profile profile = test::simple_profile();
  Model model;
  model.shape = {4, 2, 8, plan::ElementType::bf16};
  model.num_layers = 3;
  model.hidden = 32;
  model.intermediate = 50;
  model.vocabulary = 0;
  const plan::CostModel cost = cost_model(profile, model);
  EXPECT_DOUBLE_EQ(cost.pair_seconds, 4e-3 * 4 * 3);
  // Weights of a layer: 32 x (4 + 2 + 2) x 8 + 4 x 8 x 32 + 3 x 32 x 50; 2 operations forward and 4 backward each.
  EXPECT_DOUBLE_EQ(cost.token_seconds, 6.0 * (2048 + 1024 + 4800) * 3 / 1e9);
}

TEST(Machine, HasTheProfilesLinks) {
  const Machine two_nodes = make_machine(test::simple_profile(), 4, 0);
  ASSERT_EQ(two_nodes.links.size(), 2U);
  EXPECT_EQ(two_nodes.topology.levels[0], (plan::Level{2, 1, 100}));
  EXPECT_EQ(two_nodes.topology.levels[1], (plan::Level{4, 2, 50}));
  EXPECT_EQ(make_machine(test::simple_profile(), 2, 0).links.size(), 1U);
  EXPECT_EQ(make_machine(test::simple_profile(), 4, 4).links.size(), 1U);
}

template <class F>
std::string refusal(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Machine, OfSingleRanksHasTheLinkBetweenNodes) {
  Profile single = test::simple_profile();
  single.ranks_per_node = 1;
  single.links.erase(single.links.begin());
  const Machine machine = make_machine(single, 4, 0);
  ASSERT_EQ(machine.links.size(), 2U);
  EXPECT_EQ(machine.topology.levels[1], (plan::Level{4, 2, 50}));
  // Where the profile has both links, single ranks are joined by the second.
  EXPECT_EQ(make_machine(test::simple_profile(), 4, 1).topology.levels[1], (plan::Level{4, 2, 50}));
  EXPECT_THAT(refusal([&] { make_machine(single, 4, 2); }), HasSubstr("the profile simple has 1"));
}

TEST(Machine, OfAReplicaHasItsLinksAndItsShareOfTheCores) {
  Machine machine = make_machine(test::simple_profile(), 8, 4);
  EXPECT_EQ(machine_of_replica(machine, 1).links.size(), 2U);
  EXPECT_EQ(machine_of_replica(machine, 4).links.size(), 1U);
  EXPECT_EQ(machine_of_replica(machine, 4).topology.num_ranks, 2);
  machine.num_cores = 4;
  EXPECT_EQ(machine_of_replica(machine, 2).num_cores, 2);
  EXPECT_THAT(refusal([&] { machine_of_replica(machine, 8); }),
              HasSubstr("replicas that share cores have as many each, but 8 replicas share 4"));
  EXPECT_THAT(refusal([&] { machine_of_replica(make_machine(test::simple_profile(), 12, 4), 2); }),
              HasSubstr("2 replicas of 6 ranks do not on nodes of 4 ranks"));
  machine.num_cores = 8;  // none is shared
  EXPECT_EQ(machine_of_replica(machine, 2).num_cores, 0);
}

TEST(ProfileErrors, NameRuleValuesAndRemedy) {
  struct Case {
    std::function<void(Profile*)> spoil;
    const char* text;
  };
  const std::vector<Case> cases = {
      {[](Profile* p) { p->attention.clear(); }, "simple has no attention times; give some"},
      {[](Profile* p) {
         p->attention[0].queries = {10, 10};
       },
       "queries has 10 after 10; the points"},
      {[](Profile* p) { p->attention[0].keys = {}; }, "the grid has no keys"},
      {[](Profile* p) {
         p->attention[0].keys = {1, 2};
       },
       "forward has 1 times for a grid of 1 x 2"},
      {[](Profile* p) { p->attention[0].backward.seconds = {-1}; }, "backward has a time of -1 s; times are positive"},
      {[](Profile* p) { p->attention[0].forward.operation_seconds = -2; }, "forward takes -2 s an operation"},
      {[](Profile* p) { p->attention[0].tile = 0; }, "tile 0"},
      {[](Profile* p) { p->attention[0].squares = {8}; }, "forward has 0 times for 1 causal squares"},
      {[](Profile* p) {
         p->attention[0].squares = {8, 4};
         p->attention[0].forward.square_seconds = p->attention[0].backward.square_seconds = {1, 2};
       },
       "squares has 4 after 8; the points"},
      {[](Profile* p) {
         p->attention[0].squares = {8};
         p->attention[0].forward.square_seconds = {0};
         p->attention[0].backward.square_seconds = {1};
       },
       "forward has a time of 0 s; times are positive"},
      {[](Profile* p) { p->attention[0].backward.merge_row_seconds = -1; }, "backward merges in 0 s and -1 s a row"},
      {[](Profile* p) { p->memory_pair_seconds = -1; }, "-1 s a pair"},
      {[](Profile* p) { p->memory_bytes_per_second = 0; }, "has 0 bytes of memory a second"},
      {[](Profile* p) { p->ranks_per_node = 0; }, "has 0 ranks per node; give at least 1"},
      {[](Profile* p) { p->links.clear(); }, "has no links; give that inside a node"},
      {[](Profile* p) { p->links[1].message_seconds = -1; }, "level 1 takes -1 s for each further message"},
      {[](Profile* p) { p->links[1].compute_byte_seconds = -1; }, "level 1 takes -1 s a byte and 0 s a message from"},
      {[](Profile* p) { p->links[1].bytes_per_second = 0; }, "level 1 has a latency of 2 s and 0 bytes per second"},
      {[](Profile* p) { p->links[1].cards = 0; }, "level 1 has 0 cards of 50 bytes per second; give both, or neither"},
  };
  EXPECT_EQ(refusal([] { validate(test::simple_profile()); }), "");
  for (const Case& c : cases) {
    Profile profile = test::simple_profile();
    c.spoil(&profile);
    EXPECT_THAT(refusal([&] { validate(profile); }), HasSubstr(c.text));
  }
}

TEST(ProfileErrors, AnotherShapeIsNotApproximated) {
  const Profile profile = test::simple_profile();
  EXPECT_THAT(
      refusal([&] {
        attention_times(profile, {4, 2, 64, plan::ElementType::bf16});
      }),
      HasSubstr("simple has no attention times of head dimension 64 in bf16; it has 8 in bf16; use one of these"));
  EXPECT_THAT(refusal([&] {
                attention_times(profile, {4, 2, 8, plan::ElementType::f32});
              }),
              HasSubstr("head dimension 8 in f32"));
}

TEST(ProfileErrors, MoreNodesThanTheProfileHasLinksFor) {
  Profile profile = test::simple_profile();
  profile.links.pop_back();
  EXPECT_THAT(refusal([&] { make_machine(profile, 4, 2); }),
              HasSubstr("4 ranks in nodes of 2 need 2 levels of links, the profile simple has 1"));
}

TEST(MachineErrors, GroupsMakeUpWholeGroups) {
  Machine machine = make_machine(test::simple_profile(), 4, 2);
  EXPECT_EQ(refusal([&] { validate(machine); }), "");
  Machine other = machine;
  other.topology.levels.insert(other.topology.levels.begin() + 1, plan::Level{3, 1, 1});
  other.links.push_back(other.links.back());
  EXPECT_THAT(refusal([&] { validate(other); }), HasSubstr("level 1 has groups of 3 ranks around groups of 2"));
  other = machine;
  other.topology.num_ranks = 6;
  EXPECT_THAT(refusal([&] { validate(other); }), HasSubstr("the last level holds 4 ranks; it holds all 6"));
  other = machine;
  other.links.pop_back();
  EXPECT_THAT(refusal([&] { validate(other); }), HasSubstr("has 2 levels and 1 links"));
}

}  // namespace
}  // namespace evenspan::simulate
