// A guess changes how long the search takes, not what it finds.
#include "gtest/gtest.h"
#include "plan/solve/span_work.h"

namespace evenspan::plan {
namespace {

TEST(LargestFitting, IsFoundFromAnyGuess) {
  for (const int64_t most : {0, 1, 2, 7, 100}) {
    for (int64_t answer = 0; answer <= most; ++answer) {
      for (const int64_t guess :
           {int64_t{-5}, int64_t{0}, int64_t{1}, answer - 1, answer, answer + 1, most, most + 9}) {
        const int64_t found = largest_fitting(most, guess, [&](int64_t n) {
          EXPECT_GE(n, 0);
          EXPECT_LE(n, most);
          return n <= answer;
        });
        EXPECT_EQ(found, answer) << "of " << most << ", guessed " << guess;
      }
    }
  }
}

TEST(LargestFitting, TakesFewStepsFromANearGuess) {
  int num_steps = 0;
  const auto fits = [&](int64_t n) {
    ++num_steps;
    return n <= 700'000;
  };
  EXPECT_EQ(largest_fitting(1'000'000, 700'001, fits), 700'000);
  EXPECT_LE(num_steps, 3);
}

}  // namespace
}  // namespace evenspan::plan
