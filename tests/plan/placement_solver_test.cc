// What the solver promises on batches drawn from real lengths.
#include "plan/solve/placement_solver.h"

#include <gtest/gtest.h>

#include "../../bench/lengths.h"
#include "evenspan/plan/bound.h"
#include "evenspan/plan/plan.h"
#include "plan/strategy/parts.h"

namespace evenspan::plan {
namespace {

Request draw(const std::vector<int64_t>& lengths, int32_t ranks, int64_t tokens, uint64_t seed) {
  Request request;
  request.documents = Documents(bench::draw_lengths(lengths, tokens, seed), Mask{});
  request.shape = AttentionShape{32, 8, 128, ElementType::bf16};
  request.topology = make_topology(ranks, 8);
  request.options.strategy = "sequence_aware";
  return request;
}

TEST(PlacementSolver, KeepsAllThreeLimitsOnRealLengths) {
  for (const char* file : {"prolong_20000.txt", "wikipedia_20000.txt"}) {
    const std::vector<int64_t> lengths = bench::read_lengths(file);
    for (const auto& [ranks, tokens] : {std::pair<int32_t, int64_t>{8, 256 << 10}, {32, 1 << 20}, {64, 2 << 20}}) {
      for (uint64_t seed = 1; seed <= 5; ++seed) {
        const Request request = draw(lengths, ranks, tokens, seed);
        const auto plan = make_plan(request);
        const Metrics metrics = measure(*plan);
        EXPECT_LE(metrics.work_max_over_mean, 1.01) << file << " " << ranks << " seed " << seed;
        EXPECT_LE(metrics.tokens_max_over_mean, 1.1 + 1e-9) << file << " " << ranks << " seed " << seed;
        // No more than 3 % of the ring's bytes above the bound.
        const Bound bound = lower_bound(request, {metrics.work_max_over_mean, 1.1});
        const double ring = static_cast<double>(ranks - 1) * static_cast<double>(tokens);
        const auto moved = static_cast<double>(remote_key_tokens(request, plan->placement));
        EXPECT_GE(moved, static_cast<double>(bound.key_tokens));
        EXPECT_LE(moved, static_cast<double>(bound.key_tokens) + 0.03 * ring)
            << file << " " << ranks << " seed " << seed;
      }
    }
  }
}

TEST(PlacementSolver, SplitsOneDocumentOfAnyMask) {
  for (const char* mask : {"causal", "full", "window:100", "prefix:300"}) {
    for (const int32_t ranks : {1, 2, 3, 7, 16}) {
      Request request;
      request.documents = Documents(std::vector<int64_t>{20000}, parse_mask(mask));
      request.shape = AttentionShape{4, 2, 16, ElementType::f32};
      request.topology = make_topology(ranks);
      const Metrics metrics = measure(*make_plan(request));
      EXPECT_LE(metrics.work_max_over_mean, 1.01) << mask << " on " << ranks;
      EXPECT_LE(metrics.tokens_max_over_mean, 1.1 + 1e-9) << mask << " on " << ranks;
    }
  }
}

// More ranks than documents, ranks without a token, no slack: every token is placed once, whatever the shape.
TEST(PlacementSolver, PlacesTinyBatches) {
  uint64_t state = 1;
  const auto next = [&](uint64_t n) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<int64_t>((state >> 33) % n);
  };
  for (int round = 0; round < 3000; ++round) {
    Request request;
    std::vector<int64_t> lengths;
    for (int64_t n = 1 + next(6); n > 0; --n) lengths.push_back(1 + next(round % 3 == 0 ? 4 : 60));
    const char* masks[] = {"causal", "full", "window:3", "prefix:5"};
    request.documents = Documents(lengths, parse_mask(masks[next(4)]));
    request.shape = AttentionShape{1, 1, 8, ElementType::f32};
    request.topology = make_topology(static_cast<int32_t>(1 + next(12)));
    request.options.token_slack = static_cast<double>(next(3)) / 10;
    request.cost = CostModel{static_cast<double>(next(3)), static_cast<double>(next(3))};
    const Placement placement(request.documents, place(request));  // throws unless every token is placed once
    ASSERT_EQ(placement.num_ranks(), request.num_ranks());
  }
}

TEST(PlacementSolver, GivesTheSamePlacementAgain) {
  const Request request = draw(bench::read_lengths("prolong_20000.txt"), 32, 1 << 20, 3);
  EXPECT_EQ(place(request), place(request));
}

}  // namespace
}  // namespace evenspan::plan
