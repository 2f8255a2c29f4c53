// The strategies whose queries travel: what moves, and what that buys.
#include <numeric>

#include "gtest/gtest.h"
#include "plan/strategy/strategy.h"

namespace evenspan::plan {
namespace {

Request request_of(const char* strategy, const std::vector<int64_t>& lengths, int32_t num_ranks) {
  Request request;
  request.documents = Documents(lengths, Mask{});
  request.shape = AttentionShape{8, 2, 16, ElementType::bf16};
  request.topology = make_topology(num_ranks);
  request.options.strategy = strategy;
  return request;
}

TEST(TokenRing, KeysStayAtHome) {
  const auto plan = make_plan(request_of("token_ring", {700, 96, 33}, 4));
  ASSERT_FALSE(plan->moves.empty());
  for (const Move& move : plan->moves) EXPECT_EQ(move.operand, Operand::query);
  for (const Partial& partial : plan->partials) {
    EXPECT_GE(plan->placement.row_of(partial.to, partial.document, partial.rows), 0);
    EXPECT_NE(partial.from, partial.to);
  }
}

// docs/algorithms.md: of one causal document (1 - 1/2P) of the rows go around, and 3/4 of the pairs of a row and
// another rank have a partial output.
TEST(TokenRing, SendsWhatTheDocumentationSays) {
  for (const int32_t ranks : {1, 2, 3, 8}) {
    const int64_t tokens = int64_t{2} * ranks * 12;
    const Request request = request_of("token_ring", {tokens}, ranks);
    const auto& [heads, kv_heads, dim, element, state] = request.shape;
    const int64_t query_bytes = int64_t{heads} * dim * 2, partial_bytes = int64_t{heads} * (dim + 1) * 4;
    const int64_t travelling = tokens - tokens / (int64_t{2} * ranks), seen = tokens * 3 / 4;
    EXPECT_EQ(measure(*make_plan(request)).sent_bytes_total,
              (ranks - 1) * (travelling * query_bytes + seen * partial_bytes))
        << ranks << " ranks";
  }
}

TEST(Disaggregated, BalancesTokensAndPairs) {
  for (const int32_t ranks : {2, 8, 16}) {
    Request request = request_of("disaggregated", {30000, 9000, 5000, 2500, 1200, 700, 700, 350, 90, 12}, ranks);
    request.cost = CostModel{1, 0};
    const Metrics metrics = measure(*make_plan(request));
    EXPECT_LE(metrics.tokens_max_over_mean, 1.001) << ranks << " ranks";
    EXPECT_LE(metrics.work_max_over_mean, 1.011) << ranks << " ranks";
    request.options.strategy = "all_gather";  // the same placement without it
    EXPECT_GE(measure(*make_plan(request)).work_max_over_mean, 1.2) << ranks << " ranks";
  }
}

TEST(Disaggregated, LeavesEvenWorkAlone) {
  const auto plan = make_plan(request_of("disaggregated", std::vector<int64_t>(4, 500), 4));
  EXPECT_TRUE(plan->moves.empty());
  EXPECT_TRUE(plan->partials.empty());
}

}  // namespace
}  // namespace evenspan::plan
