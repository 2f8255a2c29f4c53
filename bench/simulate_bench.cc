// Simulating a step on the H100 profile's machine: lowering, pricing and the events of all layers, forward and
// backward. Target: 1,024 ranks in seconds. And planning for it what a rank does before a step, the plan and its own
// program. Targets, on one core: 64 ranks and 2M tokens in 20 ms, 1,024 ranks and 16M tokens in 300 ms.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "benchmark/benchmark.h"
#include "evenspan/plan/program.h"
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
  times.queries = times.keys = {128, 131072};  // a start of each block and so much a key
  times.forward = {2.45e-5, 0, {1.292e-7, 2.514e-5, 1.323e-4, 2.574e-2}};
  times.backward = {2.45e-5, 0, {3.603e-7, 7.011e-5, 3.690e-4, 7.179e-2}};
  profile.attention = {times};
  profile.memory_bytes_per_second = 2.68e12;
  profile.memory_operation_seconds = 5e-6;
  profile.forward_flops_per_second = profile.backward_flops_per_second = 5.93e14;
  profile.ranks_per_node = 8;
  profile.links = {{9.1e-6, 2.929e11, 0, 0}, {9.715e-5, 3.88e10, 8, 3.88e10}};
  scenario.machine = make_machine(profile, num_ranks, 0);
  return scenario;
}

plan::Request request_for(const Scenario& scenario, const char* strategy, int64_t num_tokens, const char* file) {
  plan::Request request;
  request.documents = plan::Documents(bench::draw_lengths(bench::read_lengths(file), num_tokens, 1), plan::Mask{});
  request.shape = scenario.model.shape;
  request.topology = scenario.machine.topology;
  request.cost = cost_model(scenario.profile, scenario.model);
  request.options.strategy = strategy;
  return request;
}

void plan_step(benchmark::State& state, int32_t num_ranks, int64_t num_tokens, const char* file) {
  const plan::Request request = request_for(scenario_of(num_ranks), "mixed", num_tokens, file);
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
  const Scenario scenario = scenario_of(num_ranks);
  const plan::Request request = request_for(scenario, strategy, num_tokens, file);
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
  for (const auto& [lengths, file] :
       {std::pair{"prolong", "prolong_20000.txt"}, std::pair{"wikipedia", "wikipedia_20000.txt"}}) {
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
