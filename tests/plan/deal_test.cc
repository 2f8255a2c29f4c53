// Things with two sizes, dealt to bins.
#include "plan/solve/deal.h"

#include <gtest/gtest.h>

namespace evenspan::plan {
namespace {

TEST(Deal, FillsBothCapacities) {
  // Dense and light things: each bin needs one of each.
  const std::vector<Load> items{{9, 1}, {9, 1}, {1, 9}, {1, 9}};
  std::vector<Load> bins(2);
  const std::vector<int32_t> bin_of = deal(items, {10, 10}, &bins);
  EXPECT_NE(bin_of[0], bin_of[1]);
  EXPECT_NE(bin_of[2], bin_of[3]);
  for (const Load& bin : bins) {
    EXPECT_DOUBLE_EQ(bin.attention, 10);
    EXPECT_DOUBLE_EQ(bin.tokens, 10);
  }
}

TEST(Deal, CountsWhatBinsHoldAlready) {
  std::vector<Load> bins{{5, 0}, {0, 0}};
  EXPECT_EQ(deal({{3, 1}}, {8, 8}, &bins), std::vector<int32_t>{1});
  EXPECT_DOUBLE_EQ(bins[1].attention, 3);
}

// Largest first gives 3 + 2 + 2 and 3 + 2; only 3 + 3 and 2 + 2 + 2 are even.
TEST(Deal, ExchangesWhatWasDealtBadly) {
  const std::vector<Load> items{{3, 0}, {3, 0}, {2, 0}, {2, 0}, {2, 0}};
  std::vector<Load> bins(2);
  deal(items, {6, 1}, &bins);
  EXPECT_DOUBLE_EQ(bins[0].attention, 6);
  EXPECT_DOUBLE_EQ(bins[1].attention, 6);
}

TEST(Deal, TakesZeroCapacities) {
  std::vector<Load> bins(3);
  EXPECT_EQ(deal({{0, 0}, {0, 0}}, {0, 0}, &bins).size(), 2U);
}

}  // namespace
}  // namespace evenspan::plan
