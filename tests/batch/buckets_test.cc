#include "batch/buckets.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <random>

#include "batch/groups.h"
#include "small_cost.h"

namespace evenspan::batch {
namespace {

int64_t error(const std::vector<Bucket>& buckets, const std::vector<int64_t>& lengths) {
  int64_t sum = 0;
  for (const Bucket& bucket : buckets) {
    for (const DocumentIndex document : bucket.documents) {
      sum += bucket.length - lengths[static_cast<size_t>(document)];
    }
  }
  return sum;
}

// The least error of all ways to cut sorted lengths, by trying them.
int64_t least_error(const std::vector<int64_t>& sorted, size_t begin, int64_t num_buckets) {
  if (num_buckets == 0) return begin == sorted.size() ? 0 : INT64_MAX / 2;
  int64_t least = INT64_MAX / 2;
  int64_t sum = 0;
  for (size_t end = begin + 1; end <= sorted.size(); ++end) {
    sum += sorted[end - 1];
    const int64_t own = sorted[end - 1] * static_cast<int64_t>(end - begin) - sum;
    least = std::min(least, own + least_error(sorted, end, num_buckets - 1));
  }
  return least;
}

TEST(Buckets, HaveTheLeastErrorAndAllDocuments) {
  std::mt19937 random(1);
  for (int trial = 0; trial < 200; ++trial) {
    const int count = 1 + static_cast<int>(random() % 9);
    std::vector<int64_t> lengths;
    for (int i = 0; i < count; ++i) lengths.push_back(1 + static_cast<int64_t>(random() % 50));
    std::vector<int64_t> sorted = lengths;
    std::sort(sorted.begin(), sorted.end());
    const int64_t num_buckets = 1 + static_cast<int64_t>(random() % static_cast<unsigned>(count));
    const std::vector<Bucket> buckets = make_buckets(longest_first(lengths), lengths, num_buckets);
    ASSERT_EQ(static_cast<int64_t>(buckets.size()), num_buckets);
    EXPECT_EQ(error(buckets, lengths), least_error(sorted, 0, num_buckets));
    std::vector<int32_t> all;
    for (const Bucket& bucket : buckets) {
      EXPECT_FALSE(bucket.documents.empty());
      for (const DocumentIndex document : bucket.documents) {
        EXPECT_LE(lengths[static_cast<size_t>(document)], bucket.length);
        all.push_back(document);
      }
    }
    std::sort(all.begin(), all.end());
    for (int i = 0; i < count; ++i) EXPECT_EQ(all[static_cast<size_t>(i)], i);
  }
}

TEST(Buckets, AreMoreWhereMemoryIsShort) {
  // 40 documents of 1 to 40 tokens: 820 together. 16 buckets count them as more.
  std::vector<int64_t> lengths;
  for (int64_t i = 1; i <= 40; ++i) lengths.push_back(i);
  const std::vector<DocumentIndex> documents = longest_first(lengths);
  EXPECT_EQ(make_buckets_for(documents, lengths, small_cost(4, 1000)).size(), 16u);
  const std::vector<Bucket> tight = make_buckets_for(documents, lengths, small_cost(4, 205));
  EXPECT_EQ(tight.size(), 40u);
  EXPECT_EQ(error(tight, lengths), 0);
}

TEST(CutEvenly, HasTheLeastLargestRun) {
  const std::vector<int64_t> lengths = {9, 8, 7, 6, 5, 4, 3, 2, 1};
  EXPECT_THAT(cut_evenly(longest_first(lengths), lengths, 3), testing::ElementsAre(2, 4, 9));
  EXPECT_THAT(cut_evenly(longest_first(lengths), lengths, 1), testing::ElementsAre(9));
}

TEST(PlaceGroups, DealsTokensEvenly) {
  const std::vector<int64_t> lengths = {5, 7, 2, 6};
  const Cost cost = small_cost(4, 100);
  std::vector<Group> groups(2);
  groups[0].degree = 1;
  groups[0].add(DocumentIndex(3), lengths, cost);
  groups[1].degree = 3;
  for (int document = 0; document < 3; ++document) groups[1].add(DocumentIndex(document), lengths, cost);
  const MicroBatch batch = place_groups(groups, lengths);
  std::vector<int64_t> tokens(4, 0);
  for (const Share& share : batch.shares) tokens[static_cast<size_t>(share.rank)] += share.tokens;
  EXPECT_THAT(tokens, testing::ElementsAre(5, 5, 4, 6));
  EXPECT_EQ(find_fault(StepPlan{{batch}}, lengths, cost), "");
}

}  // namespace
}  // namespace evenspan::batch
