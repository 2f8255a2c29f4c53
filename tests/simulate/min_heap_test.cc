// What a heap gives back is sorted.
#include "simulate/min_heap.h"

#include <functional>
#include <random>
#include <set>

#include "gtest/gtest.h"

namespace evenspan::simulate {
namespace {

TEST(MinHeap, GivesTheLeastOfWhatIsThere) {
  std::mt19937 random(1);
  MinHeap<uint32_t, std::less<>> heap;
  std::multiset<uint32_t> all;
  for (int i = 0; i < 5000; ++i) {
    if (all.empty() || random() % 5 < 3) {
      const uint32_t item = random() % 1000;
      heap.push(item);
      all.insert(item);
    } else {
      ASSERT_EQ(heap.top(), *all.begin());
      heap.pop();
      all.erase(all.begin());
    }
    ASSERT_EQ(heap.size(), all.size());
    ASSERT_EQ(heap.empty(), all.empty());
  }
}

}  // namespace
}  // namespace evenspan::simulate
