#include "evenspan/batch/replicas.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "evenspan/batch/step.h"
#include "small_cost.h"

namespace evenspan::batch {
namespace {

using ::testing::ElementsAre;

double slowest_replica(const ReplicaParts& division, const SecondsOf& seconds) {
  double out = 0;
  for (const auto& documents : division) out = std::max(out, documents.empty() ? 0 : seconds(documents));
  return out;
}

// Numbers that are the same everywhere.
std::vector<int64_t> some_lengths(size_t count, uint64_t seed, int64_t most) {
  std::vector<int64_t> lengths;
  for (size_t i = 0; i < count; ++i) {
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    const auto draw = static_cast<int64_t>(seed >> 44);  // below 2^20
    lengths.push_back(1 + most * draw / (1 << 20) * draw / (1 << 20));
  }
  return lengths;
}

void expect_each_once(const ReplicaParts& division, size_t num_documents) {
  std::vector<int64_t> all;
  for (const auto& documents : division) {
    EXPECT_TRUE(std::is_sorted(documents.begin(), documents.end()));
    all.insert(all.end(), documents.begin(), documents.end());
  }
  std::sort(all.begin(), all.end());
  std::vector<int64_t> each(num_documents);
  std::iota(each.begin(), each.end(), 0);
  EXPECT_EQ(all, each);
}

TEST(Replicas, TheHeaviestGoFirstToTheLightest) {
  const std::vector<double> weights = {1, 5, 2, 4, 3, 3};
  EXPECT_THAT(divide_over_replicas(weights, 2), ElementsAre(ElementsAre(0, 1, 5), ElementsAre(2, 3, 4)));
  EXPECT_THAT(divide_over_replicas(weights, 1), ElementsAre(ElementsAre(0, 1, 2, 3, 4, 5)));
  EXPECT_THAT(divide_over_replicas(std::vector<double>{7, 8}, 3),
              ElementsAre(ElementsAre(1), ElementsAre(0), ElementsAre()));
}

TEST(Replicas, TradesEvenOutWhatGreedLeaves) {
  // 5 3 3 | 4 4 at first: 11 and 8; the best is 5 4 | 4 3 3.
  const std::vector<double> weights = {5, 4, 4, 3, 3};
  const SecondsOf sum = [&](const auto& documents) {
    double seconds = 0;
    for (const int64_t document : documents) seconds += weights[static_cast<size_t>(document)];
    return seconds;
  };
  ReplicaParts division = divide_over_replicas(weights, 2);
  even_out(weights, sum, 100, &division);
  EXPECT_EQ(slowest_replica(division, sum), 10);
  expect_each_once(division, weights.size());
}

// Against all ways to divide a few documents, by the bound of a step, which has all-to-alls and micro-batches.
TEST(Replicas, AreNearTheBestDivision) {
  const Cost cost = small_cost(2, 120);
  double worst = 1, sum_of_ratios = 0;
  constexpr int kCases = 40;
  for (int i = 0; i < kCases; ++i) {
    const std::vector<int64_t> lengths = some_lengths(8, static_cast<uint64_t>(i), 240);
    const int32_t replicas = 2 + i % 2;
    std::vector<double> weights;
    for (const int64_t length : lengths) weights.push_back(lower_bound(std::span(&length, 1), cost).seconds);
    const SecondsOf bound = [&](const std::vector<int64_t>& documents) {
      std::vector<int64_t> own;
      for (const int64_t document : documents) own.push_back(lengths[static_cast<size_t>(document)]);
      return lower_bound(own, cost).seconds;
    };
    ReplicaParts division = divide_over_replicas(weights, replicas);
    const double before = slowest_replica(division, bound);
    even_out(weights, bound, 200, &division);
    expect_each_once(division, lengths.size());
    double best = before;
    for (auto code = static_cast<int64_t>(std::pow(replicas, lengths.size())) - 1; code >= 0; --code) {
      ReplicaParts other(static_cast<size_t>(replicas));
      int64_t rest = code;
      for (int64_t d = 0; d < static_cast<int64_t>(lengths.size()); ++d, rest /= replicas) {
        other[static_cast<size_t>(rest % replicas)].push_back(d);
      }
      best = std::min(best, slowest_replica(other, bound));
    }
    const double ratio = slowest_replica(division, bound) / best;
    EXPECT_LE(slowest_replica(division, bound), before);
    worst = std::max(worst, ratio);
    sum_of_ratios += ratio;
  }
  EXPECT_LE(worst, 1.02);
  EXPECT_LE(sum_of_ratios / kCases, 1.003);
}

TEST(Replicas, AskForTimesAsOftenAsAllowed) {
  const std::vector<int64_t> lengths = some_lengths(300, 3, 10'000);
  const std::vector<double> weights(lengths.begin(), lengths.end());
  for (const int tries : {0, 1, 7}) {
    int asked = 0;
    const SecondsOf squares = [&](const auto& documents) {  // far from the weights, so that most trades fail
      ++asked;
      double seconds = 0;
      for (const int64_t document : documents) seconds += weights[static_cast<size_t>(document)];
      return seconds * seconds + static_cast<double>(documents.size());
    };
    ReplicaParts division = divide_over_replicas(weights, 8);
    even_out(weights, squares, tries, &division);
    EXPECT_LE(asked, 8 + 2 * tries);
    expect_each_once(division, lengths.size());
  }
}

}  // namespace
}  // namespace evenspan::batch
