// Simulating a step on the H100 profile's machine: lowering, pricing and the events of all layers, forward and
// backward. Target: 1,024 ranks in seconds. And planning for it what a rank does before a step, the plan and its own
// program. Targets, on one core: 64 ranks and 2M tokens in 20 ms, 1,024 ranks and 16M tokens in 300 ms; the choice of
// `auto` for 64 ranks and 2M tokens in 300 ms.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "benchmark/benchmark.h"
#include "evenspan/plan/program.h"
#include "evenspan/simulate/choose.h"
#include "h100_scenario.h"
#include "lengths.h"

namespace evenspan::simulate {
namespace {

using bench::h100_scenario;
using bench::request_for;

std::vector<int64_t> lengths_of(const char* file, int64_t num_tokens) {
  return bench::draw_lengths(bench::read_lengths(file), num_tokens, 1);
}

void plan_step(benchmark::State& state, int32_t num_ranks, int64_t num_tokens, const char* file) {
  const plan::Request request = request_for(h100_scenario(num_ranks), "mixed", lengths_of(file, num_tokens));
  std::shared_ptr<const plan::Plan> plan;
  for (auto _ : state) {
    plan = plan::make_plan(request);
    benchmark::DoNotOptimize(plan::lower(*plan, Rank(0)));
  }
  state.counters["tiles"] = static_cast<double>(plan->tasks.size());
  state.counters["moves"] = static_cast<double>(plan->moves.size());
  state.counters["documents"] = static_cast<double>(request.documents.size());
}

void simulate_step(benchmark::State& state, const char* strategy, int32_t num_ranks, int64_t num_tokens,
                   const char* file) {
  const Scenario scenario = h100_scenario(num_ranks);
  const plan::Request request = request_for(scenario, strategy, lengths_of(file, num_tokens));
  const auto plan = plan::make_plan(request);
  Prediction prediction;
  for (auto _ : state) {
    prediction = predict(*plan, scenario);
    benchmark::DoNotOptimize(prediction);
  }
  state.counters["documents"] = static_cast<double>(request.documents.size());
  state.counters["modelled_step_ms"] = 1e3 * prediction.step_seconds;
  state.counters["idle"] = prediction.idle_fraction;
}

void choose_step(benchmark::State& state, int32_t num_ranks, int64_t num_tokens, const char* file) {
  const Scenario scenario = h100_scenario(num_ranks);
  const plan::Request request = request_for(scenario, "auto", lengths_of(file, num_tokens));
  Choice choice;
  for (auto _ : state) {
    choice = choose(request, scenario);
    benchmark::DoNotOptimize(choice);
  }
  state.SetLabel(choice.options.strategy);
  state.counters["candidates"] = static_cast<double>(choice.candidates.size());
  state.counters["simulated"] =
      static_cast<double>(std::count_if(choice.candidates.begin(), choice.candidates.end(),
                                        [](const Candidate& candidate) { return candidate.simulated; }));
  state.counters["modelled_step_ms"] = 1e3 * choice.prediction.step_seconds;
}

void register_all() {
  struct Case {
    const char* strategy;
    int32_t num_ranks;
    int64_t num_tokens;
    const char* lengths;
    const char* file;
  };
  constexpr Case kCases[] = {
      {"sequence_aware", 64, int64_t{1} << 20, "prolong", "prolong_20000.txt"},
      {"hierarchical", 64, int64_t{1} << 20, "prolong", "prolong_20000.txt"},
      {"ulysses", 64, int64_t{1} << 20, "prolong", "prolong_20000.txt"},
      {"usp", 64, int64_t{1} << 20, "prolong", "prolong_20000.txt"},
      {"sequence_aware", 1024, int64_t{4} << 20, "prolong", "prolong_20000.txt"},
      {"hierarchical", 1024, int64_t{4} << 20, "prolong", "prolong_20000.txt"},
      {"sequence_aware", 1024, int64_t{4} << 20, "wikipedia", "wikipedia_20000.txt"},
      {"hierarchical", 1024, int64_t{4} << 20, "wikipedia", "wikipedia_20000.txt"},
  };
  for (const Case& c : kCases) {
    const std::string title =
        std::string("simulate/") + c.strategy + "/" + std::to_string(c.num_ranks) + "/" + c.lengths;
    benchmark::RegisterBenchmark(title.c_str(), simulate_step, c.strategy, c.num_ranks, c.num_tokens, c.file)
        ->Unit(benchmark::kMillisecond);
  }
  for (const auto& [lengths, file] :
       {std::pair{"prolong", "prolong_20000.txt"}, std::pair{"wikipedia", "wikipedia_20000.txt"}}) {
    for (const int32_t num_ranks : {8, 32, 64}) {
      const std::string title = std::string("auto/") + std::to_string(num_ranks) + "/" + lengths;
      benchmark::RegisterBenchmark(title.c_str(), choose_step, num_ranks, int64_t{2} << 20, file)
          ->Unit(benchmark::kMillisecond);
    }
    for (const auto& [num_ranks, num_tokens] : {std::pair{64, int64_t{2} << 20}, std::pair{1024, int64_t{16} << 20}}) {
      const std::string title = std::string("plan/mixed/") + std::to_string(num_ranks) + "/" + lengths;
      benchmark::RegisterBenchmark(title.c_str(), plan_step, num_ranks, num_tokens, file)
          ->Unit(benchmark::kMillisecond);
    }
  }
}
const bool kRegistered = (register_all(), true);

}  // namespace
}  // namespace evenspan::simulate
