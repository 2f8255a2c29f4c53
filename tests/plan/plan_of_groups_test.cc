// Plans whose documents lie on given groups of ranks.
#include <random>

#include "evenspan/core/error.h"
#include "evenspan/plan/text.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "support/plan_by_hand.h"

namespace evenspan::plan {
namespace {

using ::testing::HasSubstr;

Request request_of(const std::vector<int64_t>& lengths, int32_t num_ranks) {
  Request request;
  request.documents = Documents(lengths, Mask{});
  request.shape = {8, 4, 16, ElementType::bf16};
  request.topology = make_topology(num_ranks);
  request.options.strategy = "ulysses";
  return request;
}

std::string error_of(const std::vector<std::vector<Rank>>& groups) {
  try {
    make_plan_of_groups(request_of({10, 20}, 4), groups);
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

TEST(PlanOfGroups, AnyGroupsAreProven) {
  std::mt19937_64 random(7);
  for (int trial = 0; trial < 60; ++trial) {
    const auto num_ranks = static_cast<int32_t>(1 + random() % 20);
    std::vector<int64_t> lengths;
    std::vector<std::vector<Rank>> groups;
    for (uint64_t d = 0; d < 1 + random() % 12; ++d) {
      lengths.push_back(static_cast<int64_t>(1 + random() % 700));
      std::vector<Rank> ranks;
      for (int32_t r = 0; r < num_ranks; ++r) ranks.emplace_back(r);
      std::shuffle(ranks.begin(), ranks.end(), random);
      ranks.resize(1 + random() % ranks.size());
      groups.push_back(std::move(ranks));
    }
    const auto plan = make_plan_of_groups(request_of(lengths, num_ranks), groups);
    const LoweredPlan lowered = lower_all(*plan);
    ASSERT_EQ(test::to_text(verify(lowered)), "") << "trial " << trial;
    ASSERT_EQ(parse(print(lowered)).programs, lowered.programs) << "trial " << trial;
    for (size_t d = 0; d < groups.size(); ++d) {
      const DocumentId id(static_cast<int64_t>(d));
      for (size_t member = 0; member < groups[d].size(); ++member) {
        int64_t tokens = 0;
        for (const Span& span : plan->placement.spans_of(groups[d][member], id)) tokens += span.size();
        const auto size = static_cast<int64_t>(groups[d].size());
        EXPECT_LE(std::abs(tokens * size - lengths[d]), size) << "document " << d;
      }
    }
  }
}

// A group of all ranks is what the strategy ulysses has, a group of one rank moves nothing.
TEST(PlanOfGroups, MovesWhatUlyssesMovesInEachGroup) {
  const Request request = request_of({4000}, 4);
  const std::vector<Rank> all = {Rank(0), Rank(1), Rank(2), Rank(3)};
  const int64_t whole = measure(*make_plan(request)).sent_bytes_total;
  EXPECT_EQ(measure(*make_plan_of_groups(request, {all})).sent_bytes_total, whole);
  EXPECT_EQ(measure(*make_plan_of_groups(request, {{Rank(2)}})).sent_bytes_total, 0);
  const auto two =
      make_plan_of_groups(request_of({4000, 4000, 64}, 8), {all, {Rank(7), Rank(5), Rank(6), Rank(4)}, {Rank(1)}});
  EXPECT_EQ(measure(*two).sent_bytes_total, 2 * whole);
}

TEST(PlanOfGroups, BadGroupsAreRefused) {
  EXPECT_THAT(error_of({{Rank(0)}}), HasSubstr("groups of ranks for 1 documents, and 2 documents"));
  for (const std::vector<Rank>& bad : std::vector<std::vector<Rank>>{{}, {Rank(4)}, {Rank(-1)}, {Rank(1), Rank(1)}}) {
    EXPECT_THAT(error_of({{Rank(0)}, bad}), HasSubstr("the group of document 1"));
  }
}

}  // namespace
}  // namespace evenspan::plan
