#include <gtest/gtest.h>

#include <atomic>
#include <cmath>

#include "collective_cases.h"
#include "evenspan/core/error.h"
#include "ranks.h"

namespace evenspan::comm {
namespace {

class Collectives : public testing::TestWithParam<int32_t> {};
INSTANTIATE_TEST_SUITE_P(Ranks, Collectives, testing::Values(1, 2, 3, 5, 8));

TEST_P(Collectives, AreExact) {
  for (const c10::Device device : test_devices()) {
    run_threads(GetParam(), [&](const Communicator& c) { collectives_are_exact(c, device); });
  }
}

TEST_P(Collectives, BarrierHoldsEveryoneUntilTheLast) {
  std::atomic<int> num_arrived{0};
  run_threads(GetParam(), [&](const Communicator& c) {
    for (int trial = 1; trial <= 20; ++trial) {
      ++num_arrived;
      barrier(c);
      EXPECT_GE(num_arrived, trial * c.size());
      barrier(c);
    }
  });
}

TEST_P(Collectives, InputsOfAGraphStayAsTheyAre) {
  run_threads(GetParam(), [&](const Communicator& c) {
    const at::Tensor parameter = test_tensor(c.rank(), {4, 6}, at::kFloat).t().requires_grad_(true);
    const at::Tensor before = parameter.detach().clone();
    EXPECT_FALSE(all_reduce(c, parameter).requires_grad());
    EXPECT_FALSE(all_gather(c, parameter)[0].requires_grad());
    EXPECT_TRUE(parameter.detach().equal(before));
    broadcast(c, Rank(0), parameter);  // strided, and a leaf
    EXPECT_TRUE(parameter.detach().equal(test_tensor(0, {4, 6}, at::kFloat).t()));
  });
}

// The costs that collectives.cc states.
TEST_P(Collectives, SendWhatTheySay) {
  const int64_t size = GetParam();
  constexpr int64_t kElements = 8 * 3 * 5 * 10;  // divisible by every number of ranks here
  const int64_t steps = size == 1 ? 0 : 1 + static_cast<int64_t>(std::log2(size - 1));
  std::atomic<int64_t> broadcast_bytes{0};
  run_threads(static_cast<int32_t>(size), [&](const Communicator& inner) {
    const auto costs = [&](const std::function<void(const Communicator&)>& call) {
      auto recorded = std::make_shared<Recorded>();
      call(make_recording_communicator(inner, recorded));
      return std::pair(recorded->num_exchanges, recorded->sent_bytes());
    };
    const at::Tensor tensor = filled(kElements, 1);
    const int64_t n = kElements * 4;
    const int64_t one = size > 1 ? 1 : 0;
    const std::vector<at::Tensor> chunks = tensor.chunk(size);
    EXPECT_EQ(costs([](const Communicator& c) { barrier(c); }), std::pair(steps, steps));
    EXPECT_EQ(costs([&](const Communicator& c) { all_gather(c, tensor); }), std::pair(one, (size - 1) * n));
    EXPECT_EQ(costs([&](const Communicator& c) { reduce_scatter(c, chunks); }), std::pair(one, (size - 1) * n / size));
    EXPECT_EQ(costs([&](const Communicator& c) { all_reduce(c, tensor); }),
              std::pair(2 * one, 2 * (size - 1) * n / size));
    broadcast_bytes += costs([&](const Communicator& c) { broadcast(c, Rank(0), tensor.clone()); }).second;
  });
  EXPECT_EQ(broadcast_bytes, (size - 1) * kElements * 4);
}

TEST(CollectiveArguments, AreChecked) {
  run_threads(3, [](const Communicator& c) {
    const std::vector<at::Tensor> two{filled(1, 0), filled(1, 0)};
    const std::vector<at::Tensor> three{filled(1, 0), filled(1, 0), filled(1, 0)};
    std::vector<at::Tensor> odd = three;
    odd[c.rank()] = filled(2, 0);
    const auto refuses = [](const std::function<void()>& call, const char* text) {
      const std::string error = error_of(call);
      EXPECT_NE(error.find(text), std::string::npos) << error;
    };
    refuses([&] { reduce_scatter(c, two, "sum"); }, "[sum] there is one input for each of the 3 ranks");
    refuses([&] { all_to_all(c, three, two, "swap"); }, "[swap] there is one output for each of the 3 ranks");
    refuses([&] { all_to_all(c, three, odd, "swap"); }, "the input has 4 bytes and the output 8");
    std::vector<at::Tensor> strided = three;
    strided[0] = filled(4, 0).view({2, 2}).t();
    refuses([&] { all_to_all(c, three, strided, "swap"); }, "[swap] outputs are contiguous");
    refuses([&] { broadcast(c, Rank(3), filled(1, 0), "weights"); }, "[weights] the root is in [0, 3)");
  });
}

}  // namespace
}  // namespace evenspan::comm
