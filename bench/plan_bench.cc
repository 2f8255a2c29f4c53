// Planning 1M tokens of ProLong and of Wikipedia on 64 ranks in nodes of 8: what a rank does before a step (the plan
// with its placement, tiles and hash, and the rank's own program). Target: at most 20 ms on one core.
#include <string>
#include <utility>
#include <vector>

#include "benchmark/benchmark.h"
#include "evenspan/plan/plan.h"
#include "evenspan/plan/program.h"
#include "evenspan/plan/text.h"
#include "evenspan/plan/verify.h"
#include "lengths.h"

namespace evenspan::plan {
namespace {

constexpr int64_t kTokens = 1 << 20;

Request request_for(const char* strategy, const char* file) {
  Request request;
  request.documents = Documents(bench::first_lengths(file, kTokens), Mask{});
  request.shape = AttentionShape{32, 8, 128, ElementType::bf16};
  request.topology = make_topology(64, 8);
  request.options.strategy = strategy;
  return request;
}

void plan_and_lower(benchmark::State& state, const char* strategy, const char* file) {
  const Request request = request_for(strategy, file);
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

// The whole machine's programs: what the checks of debug builds and `evenspan verify` cost.
void lower_everything(benchmark::State& state, const char* strategy, const char* file) {
  const auto plan = make_plan(request_for(strategy, file));
  for (auto _ : state) benchmark::DoNotOptimize(lower_all(*plan));
}

void verify_everything(benchmark::State& state, const char* strategy, const char* file) {
  const LoweredPlan plan = lower_all(*make_plan(request_for(strategy, file)));
  for (auto _ : state) benchmark::DoNotOptimize(verify(plan));
}

void print_and_parse(benchmark::State& state, const char* strategy, const char* file) {
  const LoweredPlan plan = lower_all(*make_plan(request_for(strategy, file)));
  int64_t num_bytes = 0;
  for (auto _ : state) {
    const std::string text = print(plan);
    num_bytes += static_cast<int64_t>(text.size());
    benchmark::DoNotOptimize(parse(text));
  }
  state.SetBytesProcessed(num_bytes);
}

void register_all() {
  constexpr std::pair<const char*, void (*)(benchmark::State&, const char*, const char*)> kBenchmarks[] = {
      {"plan_and_lower", plan_and_lower},
      {"lower_everything", lower_everything},
      {"verify_everything", verify_everything},
      {"print_and_parse", print_and_parse},
  };
  for (const auto& [name, function] : kBenchmarks) {
    for (const char* strategy : {"sequence_aware", "hierarchical", "mixed"}) {
      for (const auto& [lengths, file] :
           {std::pair{"prolong", "prolong_20000.txt"}, std::pair{"wikipedia", "wikipedia_20000.txt"}}) {
        const std::string title = std::string(name) + "/" + strategy + "/" + lengths;
        benchmark::RegisterBenchmark(title.c_str(), function, strategy, file)->Unit(benchmark::kMillisecond);
      }
    }
  }
}
const bool kRegistered = (register_all(), true);

}  // namespace
}  // namespace evenspan::plan
