#include "run/linear/chunk_products.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <limits>

#include "gtest/gtest.h"

namespace evenspan::run::chunked {
namespace {

struct Sizes {
  int64_t rows, inner, columns;
};

class ChunkProducts : public testing::TestWithParam<std::tuple<Sizes, at::ScalarType>> {
 protected:
  at::Tensor random(int64_t rows, int64_t columns, bool by_columns = false) const {
    const auto options = at::TensorOptions().dtype(std::get<1>(GetParam()));
    return by_columns ? at::randn({kMatrices, columns, rows}, options).transpose(1, 2)
                      : at::randn({kMatrices, rows, columns}, options);
  }
  // A sum of n products differs from the exact one by at most n units of rounding times the sum of their magnitudes.
  void expect_product(const at::Tensor& left, const at::Tensor& right, const at::Tensor& before, const at::Tensor& out,
                      const char* what) const {
    const double unit = std::get<1>(GetParam()) == at::kDouble ? std::numeric_limits<double>::epsilon()
                                                               : std::numeric_limits<float>::epsilon();
    const auto exact = [](const at::Tensor& t) { return t.to(at::kDouble); };
    const at::Tensor expected = at::bmm(exact(left), exact(right)).add_(exact(before));
    const at::Tensor size = at::bmm(exact(left).abs(), exact(right).abs()).add_(exact(before).abs());
    const at::Tensor error = (exact(out) - expected).abs();
    EXPECT_TRUE((error <= size * (unit * static_cast<double>(left.size(2) + 1))).all().item<bool>())
        << what << ": up to " << error.max().item<double>();
  }

  static constexpr int64_t kMatrices = 5;
};

TEST_P(ChunkProducts, EveryOrderOfElements) {
  const auto [rows, inner, columns] = std::get<0>(GetParam());
  for (const bool left_by_columns : {false, true}) {
    for (const bool right_by_columns : {false, true}) {
      const at::Tensor left = random(rows, inner, left_by_columns), right = random(inner, columns, right_by_columns);
      const at::Tensor zero = at::zeros({kMatrices, rows, columns}, left.options());
      const at::Tensor out = at::full_like(zero, std::numeric_limits<double>::quiet_NaN());
      multiply(left, right, Zeros::none, Sum::over, out);
      expect_product(left, right, zero, out, "over");
      const at::Tensor before = random(rows, columns), sum = before.clone();
      multiply(left, right, Zeros::none, Sum::add, sum);
      expect_product(left, right, before, sum, "added");
    }
  }
}

TEST_P(ChunkProducts, Triangles) {
  const auto [rows, inner, columns] = std::get<0>(GetParam());
  const at::Tensor right = random(rows, columns), before = random(rows, columns);
  const at::Tensor lower = random(rows, rows).tril(), upper = lower.transpose(1, 2);
  at::Tensor sum = before.clone();
  multiply(lower, right, Zeros::left_above, Sum::add, sum);
  expect_product(lower, right, before, sum, "nothing above the diagonal");
  sum = before.clone();
  multiply(upper, right, Zeros::left_below, Sum::add, sum);
  expect_product(upper, right, before, sum, "nothing below the diagonal");
  const at::Tensor left = random(rows, inner), key = random(rows, inner), out = at::zeros_like(lower);
  multiply(left, key.transpose(1, 2), Zeros::result_above, Sum::over, out);
  const at::Tensor kept = at::ones({rows, rows}, at::kDouble).tril();
  const at::Tensor expected = at::bmm(left.to(at::kDouble), key.transpose(1, 2).to(at::kDouble)) * kept;
  EXPECT_TRUE(at::allclose(out.to(at::kDouble) * kept, expected, 0, 2e-3));  // 128 units of sums of magnitudes to 128
}

TEST_P(ChunkProducts, RowsOfWiderTensorsAndThreads) {
  const auto [rows, inner, columns] = std::get<0>(GetParam());
  const at::Tensor left = random(rows, inner + 3).narrow(2, 1, inner),
                   right = random(inner, columns + 5).narrow(2, 2, columns);
  const at::Tensor zero = at::zeros({kMatrices, rows, columns}, left.options()), one = at::empty_like(zero);
  const at::Tensor wide = random(rows, columns + 2), around = wide.clone();
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  multiply(left, right, Zeros::none, Sum::over, one);
  at::set_num_threads(3);
  multiply(left, right, Zeros::none, Sum::over, wide.narrow(2, 1, columns));
  at::set_num_threads(threads);
  expect_product(left, right, zero, one, "one thread");
  EXPECT_TRUE(wide.narrow(2, 1, columns).equal(one));
  for (const int64_t column : {int64_t{0}, columns + 1}) {
    EXPECT_TRUE(wide.select(2, column).equal(around.select(2, column)));
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, ChunkProducts,
                         testing::Combine(testing::Values(Sizes{1, 1, 1}, Sizes{3, 5, 7}, Sizes{16, 64, 64},
                                                          Sizes{32, 64, 32}, Sizes{33, 17, 48}, Sizes{64, 128, 50},
                                                          Sizes{130, 64, 130}),
                                          testing::Values(at::kFloat, at::kDouble)));

}  // namespace
}  // namespace evenspan::run::chunked
