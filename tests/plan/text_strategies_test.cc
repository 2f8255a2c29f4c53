// The text form on what the strategies really write.
#include <random>

#include "evenspan/plan/text.h"
#include "gtest/gtest.h"
#include "plan/strategy/strategy.h"

namespace evenspan::plan {
namespace {

Request random_request(std::mt19937_64* random, std::string_view strategy) {
  const auto below = [random](int64_t most) { return static_cast<int64_t>((*random)() % static_cast<uint64_t>(most)); };
  std::vector<Document> documents;
  for (int64_t n = below(6) + 1; n > 0; --n) {
    constexpr Mask kMasks[] = {
        {MaskKind::causal, 0}, {MaskKind::full, 0}, {MaskKind::window, 7}, {MaskKind::prefix, 3}};
    documents.push_back(Document{below(2) == 0 ? below(4) + 1 : below(60) + 1, kMasks[below(4)]});
  }
  Request request;
  request.documents = Documents(std::move(documents));
  const auto kv_heads = static_cast<int32_t>(below(3) + 1);
  request.shape = AttentionShape{static_cast<int32_t>(kv_heads * (below(3) + 1)), kv_heads,
                                 static_cast<int32_t>(below(8) + 1), static_cast<ElementType>(below(4))};
  const int64_t num_ranks = below(6) + 1;
  request.topology = make_topology(static_cast<int32_t>(num_ranks), static_cast<int32_t>(below(num_ranks + 1)));
  request.options.strategy = strategy;
  return request;
}

TEST(TextStrategies, PlansOfEveryStrategyReadBackTheSame) {
  for (const Strategy& strategy : strategies()) {
    std::mt19937_64 random(7);
    for (int i = 0; i < 60; ++i) {
      const auto plan = make_plan(random_request(&random, strategy.name));
      const LoweredPlan lowered = lower_all(*plan);
      const std::string text = print(lowered);
      const LoweredPlan read = parse(text);
      ASSERT_EQ(read.request.documents.all(), plan->request.documents.all());
      ASSERT_EQ(read.request.shape, plan->request.shape);
      ASSERT_EQ(read.request.topology, plan->request.topology);
      ASSERT_EQ(read.request.options, plan->request.options);
      ASSERT_EQ(read.placement, lowered.placement);
      ASSERT_EQ(read.programs, lowered.programs) << strategy.name << " " << i;
      ASSERT_EQ(print(read), text) << strategy.name << " " << i;
    }
  }
}

// What `evenspan plan` reports as sent is what the programs send.
TEST(TextStrategies, ProgramsSendWhatTheMetricsSay) {
  for (const Strategy& strategy : strategies()) {
    std::mt19937_64 random(8);
    for (int i = 0; i < 60; ++i) {
      const auto plan = make_plan(random_request(&random, strategy.name));
      const LoweredPlan lowered = lower_all(*plan);
      const Metrics metrics = measure(*plan);
      for (size_t r = 0; r < lowered.programs.size(); ++r) {
        ASSERT_EQ(sent_bytes(lowered.programs[r].phase(PhaseKind::forward), plan->request.shape), metrics.sent_bytes[r])
            << strategy.name << " " << i << " rank " << r;
      }
    }
  }
}

}  // namespace
}  // namespace evenspan::plan
