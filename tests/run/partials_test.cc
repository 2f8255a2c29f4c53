#include "run/partials.h"

#include <ATen/Functions.h>

#include <limits>

#include "gtest/gtest.h"

namespace evenspan::run {
namespace {

constexpr int64_t kTiles = 2, kRows = 70, kPartHeads = 3, kDim = 5;

// Attention with weights exp(scores), [tiles, rows, heads, keys], over values [keys, dim].
struct Partial {
  at::Tensor output, lse;
};
Partial attend(const at::Tensor& scores, const at::Tensor& values) {
  return {at::matmul(scores.softmax(-1), values), scores.logsumexp(-1)};
}

class Partials : public testing::TestWithParam<at::ScalarType> {};

TEST_P(Partials, AreThoseOfAllKeys) {
  const at::ScalarType type = GetParam();
  const bool wide = type == at::kDouble;
  const auto options = at::TensorOptions().dtype(at::kDouble);
  const at::Tensor scores = at::randn({kTiles, kRows, kPartHeads, 9}, options).mul_(20);
  const at::Tensor values = at::randn({9, kDim}, options);
  const Partial all = attend(scores, values);
  // Sums up to 100 are rounded, which is a relative error of their exponentials; outputs once before and once after.
  const double unit = wide ? 1e-12 : type == at::kFloat ? 1e-4 : type == at::kHalf ? 2e-3 : 2e-2;
  const auto part = [&](int64_t begin, int64_t size) {
    const Partial exact = attend(scores.narrow(-1, begin, size), values.narrow(0, begin, size));
    return Partial{exact.output.to(type), exact.lse.to(wide ? at::kDouble : at::kFloat)};
  };
  for (const int64_t first : {1, 4, 8}) {
    const Partial own = part(0, first), other = part(first, 9 - first);
    // Heads before rows in memory, as of outputs that are views.
    const at::Tensor output = own.output.transpose(1, 2).contiguous().transpose(1, 2);
    merge_partials(output, own.lse, other.output, other.lse);
    EXPECT_TRUE(at::allclose(output.to(at::kDouble), all.output, unit, unit)) << first;
    EXPECT_TRUE(at::allclose(own.lse.to(at::kDouble), all.lse, wide ? 1e-14 : 1e-6, wide ? 1e-13 : 1e-5)) << first;
  }
}

TEST_P(Partials, WithoutKeysCountNothing) {
  const at::ScalarType type = GetParam();
  const at::ScalarType sums = type == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor output = at::randn({kRows, kPartHeads, kDim}).to(type),
                   lse = at::randn({kRows, kPartHeads}).to(sums);
  const at::Tensor none = at::zeros_like(output);
  const at::Tensor minus = at::full_like(lse, -std::numeric_limits<double>::infinity());
  const Partial first{none.clone(), minus.clone()}, second{output.clone(), lse.clone()};
  merge_partials(first.output, first.lse, output, lse);
  EXPECT_TRUE(first.output.equal(output));
  EXPECT_TRUE(first.lse.equal(lse));
  merge_partials(second.output, second.lse, none, minus);
  EXPECT_TRUE(second.output.equal(output));
  EXPECT_TRUE(second.lse.equal(lse));
}

INSTANTIATE_TEST_SUITE_P(Types, Partials, testing::Values(at::kDouble, at::kFloat, at::kBFloat16, at::kHalf));

TEST(Partials, OfSixteenBitsJoinWiderOnes) {
  const at::Tensor output = at::randn({kRows, kPartHeads, kDim}), lse = at::zeros({kRows, kPartHeads});
  const at::Tensor other = at::randn({kRows, kPartHeads, kDim}).to(at::kBFloat16);
  const at::Tensor expected = (output + other.to(at::kFloat)) / 2;
  merge_partials(output, lse, other, at::zeros_like(lse));
  EXPECT_TRUE(at::allclose(output, expected, 0, 4e-6));  // 4 units in the last place of numbers up to 8
}

}  // namespace
}  // namespace evenspan::run
