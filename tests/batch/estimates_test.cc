// Estimates of micro-batches, worked out by hand and beside what pouring finds.
#include "batch/estimates.h"

#include <gtest/gtest.h>

#include <limits>

#include "batch/groups.h"
#include "batch/pour.h"
#include "small_cost.h"

namespace evenspan::batch {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr double kLevel = 0.01;  // by which the times differ that are looked at

double estimated(const std::vector<int64_t>& lengths, const Cost& cost, const Members& members) {
  const std::vector<DocumentIndex> documents = longest_first(lengths);
  return Estimates(documents, lengths, cost).seconds(members);
}

double estimated(const std::vector<int64_t>& lengths, const Cost& cost) {
  return estimated(lengths, cost, Members{0, lengths.size(), 0});
}

double poured(const std::vector<int64_t>& lengths, const Cost& cost) {
  return pour(longest_first(lengths), lengths, cost, {0, kNever}, Effort::thorough).value().seconds;
}

TEST(Estimates, DocumentsThatFitWholeTakeTheMeanOfTheRanks) {
  const Cost cost = small_cost(4, 1000);
  const std::vector<int64_t> lengths(8, 100);  // 110 s each
  EXPECT_DOUBLE_EQ(estimated(lengths, cost), 220);
  EXPECT_DOUBLE_EQ(estimated(lengths, cost, Members{0, 3, 1}), 110);
}

TEST(Estimates, ACutDocumentPaysForTheRanksThatItNeeds) {
  // 390 s of work and, on two ranks or four, 30 or 150 s of all-to-alls.
  EXPECT_NEAR(estimated({300}, small_cost(2, 1000)), 210, 210 * kLevel);
  EXPECT_NEAR(estimated({300}, small_cost(4, 1000)), 135, 135 * kLevel);
  // Two ranks do it while the other two have 200 s of their own.
  EXPECT_NEAR(estimated({300, 100, 99, 98, 97}, small_cost(4, 1000)),
              (390 + 30 + 110 + 108.801 + 107.604 + 106.409) / 4, 220 * kLevel);
}

TEST(Estimates, RoomThatNobodyHasTimeToFillIsLost) {
  Cost cost = small_cost(4, 1000);
  cost.square_seconds = 0.1;
  cost.exchange_seconds = {0, 0.1, 2};
  std::vector<int64_t> lengths{80};       // 9 s a token
  lengths.insert(lengths.end(), 44, 10);  // 2 s a token
  // The long document on two ranks, 364 s each, which have 38 s for 19 tokens of the others.
  EXPECT_NEAR(estimated(lengths, cost), (80 * 9.1 + 440 * 2) / 4, 402 * kLevel);
  // Every rank has 130 tokens, which takes those with 40 of the long one 544 s: it is on all four, 20 each.
  cost.capacity_tokens = 130;
  EXPECT_NEAR(estimated(lengths, cost), 20 * 11 + 110 * 2, 440 * kLevel);
  EXPECT_NEAR(poured(lengths, cost), 440, 1);
}

}  // namespace
}  // namespace evenspan::batch
