// Attention kernels called alone, against softmax written out in float64: outputs, log-sum-exps and gradients of calls
// of every type whose causal squares are computed whole, in small ones, and in another type.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "run/causal_pieces.h"
#include "run/kernels.h"

namespace evenspan::run {
namespace {

TEST(CausalPieces, CoverEachAllowedPairOnce) {
  for (const int64_t leaf : {1, 3, 8}) {
    for (int64_t rows = 1; rows <= 70; ++rows) {
      std::vector<int> count(static_cast<size_t>(rows * rows));
      for (const CausalPieces& pieces : causal_pieces(rows, leaf)) {
        ASSERT_TRUE(!pieces.causal() || pieces.queries.size() <= leaf);
        for (int64_t i = 0; i < pieces.count; ++i) {
          const int64_t at = i * pieces.step;
          ASSERT_LE(pieces.queries.end + at, rows);
          for (int64_t q = pieces.queries.begin; q < pieces.queries.end; ++q) {
            const int64_t end = pieces.causal() ? q + 1 : pieces.keys.end;
            for (int64_t k = pieces.keys.begin; k < end; ++k) ++count[static_cast<size_t>((q + at) * rows + k + at)];
          }
        }
      }
      for (int64_t q = 0; q < rows; ++q) {
        for (int64_t k = 0; k < rows; ++k) {
          ASSERT_EQ(count[static_cast<size_t>(q * rows + k)], k <= q ? 1 : 0) << rows << " rows, leaf " << leaf;
        }
      }
    }
  }
}

TEST(CausalPieces, ThePiecesThatMeetEveryRowComeFirst) {
  const auto pieces = causal_pieces(200, 64);
  ASSERT_GE(pieces.size(), 3U);
  EXPECT_TRUE(pieces[0].causal());
  EXPECT_EQ(pieces[0].count, 3);
  EXPECT_TRUE(pieces[1].causal());
  EXPECT_EQ(pieces[1].queries, (Span{192, 200}));
  EXPECT_FALSE(pieces[2].causal());
}

struct Case {
  at::ScalarType type;
  plan::TileKind kind;
  int64_t tiles, rows;
};

double rounding_of(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return 0x1p-50;
    case at::kFloat:
      return 0x1p-20;  // that of the kernel's exponentials
    case at::kHalf:
      return 0x1p-11;
    default:
      return 0x1p-8;
  }
}

// Largest difference, in roundings of the type at the largest element, or at 1, about which the operands are.
double roundings(const at::Tensor& actual, const at::Tensor& expected, at::ScalarType type) {
  const double difference = (actual.to(at::kDouble) - expected).abs().max().item<double>();
  return difference / (rounding_of(type) * std::max(1.0, expected.abs().max().item<double>()));
}

class AttentionKernel : public testing::TestWithParam<Case> {};

TEST_P(AttentionKernel, IsSoftmaxAttention) {
  constexpr int64_t kHeads = 6, kKvHeads = 2, kDim = 16;
  constexpr double kMost = 8;  // sums in 16 bits round several times
  const auto [type, kind, tiles, rows] = GetParam();
  at::manual_seed(7);
  // Rows of two more tensors lie between those of one, and a tile's rows end before the next one's begin.
  const auto operand = [&, tiles = tiles, rows = rows, type = type](int64_t heads) {
    return at::randn({tiles, rows + 3, 3 * heads, kDim}, at::kDouble)
        .to(type)
        .narrow(1, 0, rows)
        .narrow(2, heads, heads);
  };
  const at::Tensor q = operand(kHeads), k = operand(kKvHeads), v = operand(kKvHeads), grad_output = operand(kHeads);
  const auto leaf = [](const at::Tensor& x) { return x.to(at::kDouble).detach().clone().requires_grad_(); };
  const at::Tensor query = leaf(q), key = leaf(k), value = leaf(v);
  const auto all_heads = [](const at::Tensor& x) { return x.repeat_interleave(kHeads / kKvHeads, 2).transpose(1, 2); };
  at::Tensor scores = query.transpose(1, 2).matmul(all_heads(key).transpose(2, 3)) / 4.0;  // 4: root of the dimension
  if (kind == plan::TileKind::causal) {
    scores = scores.masked_fill(at::ones({rows, rows}, at::kBool).triu(1), -std::numeric_limits<double>::infinity());
  }
  const at::Tensor output = scores.softmax(-1).matmul(all_heads(value)).transpose(1, 2);

  output.backward(grad_output.to(at::kDouble));

  const int threads_before = at::get_num_threads();
  for (const int threads : {1, 3}) {
    SCOPED_TRACE(testing::Message() << threads << " threads");
    at::set_num_threads(threads);
    KernelCall call;
    call.kind = kind;
    call.query = q;
    call.key = k;
    call.value = v;
    call.output = operand(kHeads);
    call.lse = at::empty({tiles, rows, kHeads}, type == at::kDouble ? at::kDouble : at::kFloat);
    attend({call});
    EXPECT_LE(roundings(call.output, output, type), kMost);
    const at::Tensor lse = scores.logsumexp(-1).transpose(1, 2);
    if (type == at::kDouble || type == at::kFloat) {
      EXPECT_LE(roundings(call.lse, lse, type), kMost);
    } else {
      // Where the kernel computes in 16 bits, its exponentials are 2^x by a polynomial of degree 3 with a relative
      // error of up to 1.1e-4 (fexp_u20 of ATen's vectors), which is what a log-sum-exp is off by then.
      EXPECT_LE((call.lse.to(at::kDouble) - lse).abs().max().item<double>(), 0x1p-13);
    }
    call.grad_output = grad_output;
    call.grad_query = operand(kHeads);
    call.grad_key = operand(kKvHeads);
    call.grad_value = operand(kKvHeads);
    attend_gradient({call});
    EXPECT_LE(roundings(call.grad_query, query.grad(), type), kMost);
    EXPECT_LE(roundings(call.grad_key, key.grad(), type), kMost);
    EXPECT_LE(roundings(call.grad_value, value.grad(), type), kMost);
  }
  at::set_num_threads(threads_before);
}

std::vector<Case> cases() {
  std::vector<Case> result;
  for (const at::ScalarType type : {at::kDouble, at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const plan::TileKind kind : {plan::TileKind::causal, plan::TileKind::full}) {
      // More tiles than pieces and fewer; one piece, whole ones, a last one of one row, of half a one, and of more;
      // from 1,025 rows on with larger pieces.
      for (const auto& [tiles, rows] : std::vector<std::pair<int64_t, int64_t>>{
               {40, 1}, {3, 64}, {1, 65}, {5, 128}, {2, 300}, {1, 1024}, {2, 1100}}) {
        result.push_back({type, kind, tiles, rows});
      }
    }
  }
  return result;
}

std::string name(const testing::TestParamInfo<Case>& info) {
  const Case& c = info.param;
  return std::string(c10::toString(c.type)) + "_" + std::string(plan::to_string(c.kind)) + "_" +
         std::to_string(c.tiles) + "_tiles_of_" + std::to_string(c.rows);
}

INSTANTIATE_TEST_SUITE_P(All, AttentionKernel, testing::ValuesIn(cases()), name);

}  // namespace
}  // namespace evenspan::run
