// Simulating a step on the H100 profile's machine: lowering, pricing and the events of all layers, forward and
// backward. Target: 1,024 ranks in seconds.
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "evenspan/simulate/formula.h"
#include "lengths.h"

namespace evenspan::simulate {
namespace {

// The shape of the shipped profile h100-sxm, with one rate for all kernels: reading JSON is not the library's.
Scenario scenario_of(int32_t num_ranks) {
  Scenario scenario;
  Profile& profile = scenario.profile;
  profile.name = "bench";
  AttentionTimes times;
  times.head_dim = 128;
  times.elements = {plan::ElementType::bf16};
  times.tile = 128;
  times.queries = times.keys = {128};
  times.forward = {2.45e-5, 0, {2.46e-8}};
  times.backward = {2.45e-5, 0, {6.86e-8}};
  profile.attention = {times};
  profile.memory_bytes_per_second = 2.68e12;
  profile.memory_operation_seconds = 5e-6;
  profile.forward_flops_per_second = profile.backward_flops_per_second = 5.93e14;
  profile.ranks_per_node = 8;
  profile.links = {{9.1e-6, 2.929e11, 0, 0}, {9.715e-5, 3.88e10, 8, 3.88e10}};
  scenario.machine = make_machine(profile, num_ranks, 0);
  return scenario;
}

void simulate_step(benchmark::State& state, const char* strategy, int32_t num_ranks, int64_t num_tokens,
                   const char* file) {
  const Scenario scenario = scenario_of(num_ranks);
  plan::Request request;
  request.documents = plan::Documents(bench::first_lengths(file, num_tokens), plan::Mask{});
  request.shape = scenario.model.shape;
  request.topology = scenario.machine.topology;
  request.cost = cost_model(scenario.profile, scenario.model);
  request.options.strategy = strategy;
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
}
const bool kRegistered = (register_all(), true);

}  // namespace
}  // namespace evenspan::simulate
