#include "batch/divide.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "batch/groups.h"
#include "small_cost.h"

namespace evenspan::batch {
namespace {

TEST(StandardSets, HaveTheFirstOfEqualDocuments) {
  const std::vector<int64_t> lengths = {9, 5, 5, 5, 2};
  const std::vector<size_t> sets = standard_sets(lengths);
  ASSERT_EQ(sets.size(), 32u);
  EXPECT_EQ(sets[0b00000], 0b00000u);
  EXPECT_EQ(sets[0b01000], 0b00010u);
  EXPECT_EQ(sets[0b01010], 0b00110u);
  EXPECT_EQ(sets[0b11001], 0b10011u);
  EXPECT_EQ(sets[0b11111], 0b11111u);
}

// Documents of each micro-batch.
std::vector<std::vector<int64_t>> divided(const std::vector<int64_t>& lengths, const Cost& cost, double most_seconds) {
  const StepPlan plan = divide_few(longest_first(lengths), lengths, cost, most_seconds);
  EXPECT_EQ(find_fault(plan, lengths, cost), plan.micro_batches.empty() ? "document 0 is in no micro-batch" : "");
  std::vector<std::vector<int64_t>> out;
  for (const MicroBatch& batch : plan.micro_batches) {
    out.emplace_back();
    for_each_document(batch,
                      [&](std::span<const Share> shares) { out.back().push_back(shares.front().document.value); });
  }
  return out;
}

TEST(DivideFew, FillsMemoryWithDocumentsOfAnyLength) {
  // On one rank of 10 tokens neighbours in length need three micro-batches, 7 | 6 | 4 3 or 7 | 6 4 | 3.
  const std::vector<int64_t> lengths = {7, 6, 4, 3};
  const Cost cost = small_cost(1, 10);
  EXPECT_THAT(divided(lengths, cost, 1000),
              testing::ElementsAre(testing::ElementsAre(0, 3), testing::ElementsAre(1, 2)));
  // Two micro-batches and 20 tokens with 110 pairs take 40.11 s; a plan that takes hardly more is not beaten.
  EXPECT_THAT(divided(lengths, cost, 40.2), testing::SizeIs(2));
  EXPECT_THAT(divided(lengths, cost, 40.12), testing::IsEmpty());
}

TEST(DivideFew, DividesEqualDocuments) {
  // Two fit on two ranks; the fifth is cut over both.
  EXPECT_THAT(divided({8, 8, 8, 8, 8}, small_cost(2, 10), 1000),
              testing::UnorderedElementsAre(testing::SizeIs(2), testing::SizeIs(2), testing::SizeIs(1)));
}

}  // namespace
}  // namespace evenspan::batch
