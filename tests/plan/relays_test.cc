// Rows that several ranks of a node need cross into it once.
#include <gtest/gtest.h>

#include <map>

#include "evenspan/plan/plan.h"
#include "evenspan/plan/program.h"
#include "evenspan/plan/verify.h"
#include "support/plan_by_hand.h"

namespace evenspan::plan {
namespace {

// Two nodes of four, a link between them so slow that attention waits for it, and a document that takes both.
Request request_of(const std::string& strategy, double bytes_per_second) {
  Request request;
  request.documents = Documents(std::vector<int64_t>{9000, 700, 300, 40, 2500}, Mask{});
  request.shape = AttentionShape{4, 1, 8, ElementType::f64};
  request.topology = make_topology(8, 4);
  request.topology.levels[0].bytes_per_second = 100 * bytes_per_second;
  request.topology.levels[1].bytes_per_second = bytes_per_second;
  request.options.strategy = strategy;
  if (strategy != "sequence_aware") request.options.ranks_per_group = 2;
  return request;
}

// Key and value rows x heads that arrive from other nodes, and how often each arrives in a node.
struct Arrivals {
  int64_t rows = 0;
  int64_t most_often = 0;
};
Arrivals between_nodes(const Plan& plan) {
  std::map<std::tuple<int32_t, DocumentId, int64_t, int32_t>, int64_t> counts;  // by node, document, row, head
  Arrivals arrivals;
  for (const Move& move : plan.moves) {
    if (move.operand != Operand::key_value || move.from / 4 == move.to / 4) continue;
    arrivals.rows += move.rows.size() * move.heads.size();
    for (int64_t row = move.rows.begin; row < move.rows.end; ++row) {
      for (int32_t head = move.heads.begin; head < move.heads.end; ++head) {
        const int64_t count = ++counts[{move.to / 4, move.document, row, head}];
        arrivals.most_often = std::max(arrivals.most_often, count);
      }
    }
  }
  return arrivals;
}

int64_t key_rows(const Plan& plan) {
  int64_t rows = 0;
  for (const Move& move : plan.moves) {
    if (move.operand == Operand::key_value) rows += move.rows.size() * move.heads.size();
  }
  return rows;
}

class Relays : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Strategies, Relays, testing::Values("sequence_aware", "hierarchical", "mixed"),
                         [](const auto& info) { return info.param; });

TEST_P(Relays, BringRowsIntoANodeOnce) {
  const auto direct = make_plan(request_of(GetParam(), 1e15));
  const auto relayed = make_plan(request_of(GetParam(), 1e6));
  for (const auto& plan : {direct, relayed}) EXPECT_EQ(test::to_text(verify(lower_all(*plan))), "");
  EXPECT_GT(between_nodes(*direct).most_often, 1);
  EXPECT_EQ(between_nodes(*relayed).most_often, 1);
  EXPECT_LT(between_nodes(*relayed).rows, between_nodes(*direct).rows);
  int64_t needed = 0;
  for (const Need& need : relayed->needs) {
    if (need.move.operand == Operand::key_value) needed += need.move.rows.size() * need.move.heads.size();
  }
  EXPECT_EQ(key_rows(*relayed), needed) << "each rank gets each row once";
}

// A plan whose attention takes longer than its transfers has no round for relays.
TEST_P(Relays, StayAwayWhereLinksDoNotBind) {
  Request request = request_of(GetParam(), 1e6);
  request.cost.pair_seconds = 1;
  const auto plan = make_plan(request);
  EXPECT_FALSE(plan->needs.empty());
  for (const Need& need : plan->needs) EXPECT_EQ(need.via, Rank(-1));
}

}  // namespace
}  // namespace evenspan::plan
