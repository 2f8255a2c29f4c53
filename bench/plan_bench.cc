// Planning 1M tokens of ProLong on 64 ranks in nodes of 8: what a rank does before a step (the plan with its placement,
// tiles and hash, and the rank's own program). Target: at most 20 ms on one core.
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <vector>

#include "benchmark/benchmark.h"
#include "evenspan/plan/plan.h"
#include "evenspan/plan/program.h"
#include "evenspan/plan/text.h"
#include "evenspan/plan/verify.h"

namespace evenspan::plan {
namespace {

constexpr int64_t kTokens = 1 << 20;

// The first documents of bench/data/, the last one cut, so that they have `kTokens` tokens.
Documents prolong() {
  std::ifstream in(std::filesystem::path(__FILE__).parent_path() / "data" / "prolong_2000.txt");
  std::vector<int64_t> lengths;
  int64_t left = kTokens;
  for (int64_t length = 0; left > 0 && in >> length; left -= lengths.back()) {
    lengths.push_back(std::min(length, left));
  }
  if (left > 0) throw std::runtime_error("bench/data/prolong_2000.txt is missing or short");
  return Documents(lengths, Mask{});
}

Request prolong_request(const char* strategy) {
  Request request;
  request.documents = prolong();
  request.shape = AttentionShape{32, 8, 128, ElementType::bf16};
  request.topology = make_topology(64, 8);
  request.options.strategy = strategy;
  return request;
}

void plan_and_lower(benchmark::State& state, const char* strategy) {
  const Request request = prolong_request(strategy);
  int64_t rank = 0;
  for (auto _ : state) {
    const auto plan = make_plan(request);
    benchmark::DoNotOptimize(lower(*plan, Rank(rank)));
    rank = (rank + 1) % request.num_ranks();  // programs differ in length
  }
  const Metrics metrics = measure(*make_plan(request));
  state.counters["documents"] = static_cast<double>(request.documents.size());
  state.counters["tokens_max_over_mean"] = metrics.tokens_max_over_mean;
  state.counters["work_max_over_mean"] = metrics.work_max_over_mean;
  state.counters["of_ring_bytes"] =
      static_cast<double>(metrics.sent_bytes_total) / static_cast<double>(metrics.ring_bytes_total);
}
BENCHMARK_CAPTURE(plan_and_lower, sequence_aware, "sequence_aware")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(plan_and_lower, hierarchical, "hierarchical")->Unit(benchmark::kMillisecond);

// The whole machine's programs: what the checks of debug builds and `evenspan verify` cost.
void lower_everything(benchmark::State& state, const char* strategy) {
  const auto plan = make_plan(prolong_request(strategy));
  for (auto _ : state) benchmark::DoNotOptimize(lower_all(*plan));
}
BENCHMARK_CAPTURE(lower_everything, sequence_aware, "sequence_aware")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(lower_everything, hierarchical, "hierarchical")->Unit(benchmark::kMillisecond);

void verify_everything(benchmark::State& state, const char* strategy) {
  const LoweredPlan plan = lower_all(*make_plan(prolong_request(strategy)));
  for (auto _ : state) benchmark::DoNotOptimize(verify(plan));
}
BENCHMARK_CAPTURE(verify_everything, sequence_aware, "sequence_aware")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(verify_everything, hierarchical, "hierarchical")->Unit(benchmark::kMillisecond);

void print_and_parse(benchmark::State& state, const char* strategy) {
  const LoweredPlan plan = lower_all(*make_plan(prolong_request(strategy)));
  int64_t num_bytes = 0;
  for (auto _ : state) {
    const std::string text = print(plan);
    num_bytes += static_cast<int64_t>(text.size());
    benchmark::DoNotOptimize(parse(text));
  }
  state.SetBytesProcessed(num_bytes);
}
BENCHMARK_CAPTURE(print_and_parse, sequence_aware, "sequence_aware")->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace evenspan::plan
