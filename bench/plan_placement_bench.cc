// The placement solver on 20 batches of real lengths for each machine, drawn with a fixed seed, documents cut at a
// quarter of the batch: the time of one plan, and how even and how cheap the plans are. `bytes` are keys and values as
// a fraction of the ring's, `bound` is the least that any placement with queries at home needs within the same limits,
// `allowed` counts the batches whose bound is within 3 %, `kept` those of them whose plan is.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "benchmark/benchmark.h"
#include "evenspan/plan/bound.h"
#include "evenspan/plan/plan.h"
#include "lengths.h"

namespace evenspan::plan {
namespace {

constexpr int kBatches = 20;

Request draw(const std::vector<int64_t>& lengths, int32_t ranks, int64_t tokens, uint64_t seed) {
  Request request;
  request.documents = Documents(bench::draw_lengths(lengths, tokens, seed), Mask{});
  request.shape = AttentionShape{32, 8, 128, ElementType::bf16};
  request.topology = make_topology(ranks, 8);
  request.options.strategy = "sequence_aware";
  return request;
}

struct Series {
  double sum = 0, worst = 0;
  void add(double value) {
    sum += value;
    worst = std::max(worst, value);
  }
};

void place_batches(benchmark::State& state, const std::string& file, int32_t ranks, int64_t tokens) {
  const std::vector<int64_t> lengths = bench::read_lengths(file);
  std::vector<Request> requests;
  for (uint64_t seed = 1; seed <= kBatches; ++seed) requests.push_back(draw(lengths, ranks, tokens, seed));
  size_t next = 0;
  for (auto _ : state) benchmark::DoNotOptimize(make_plan(requests[next++ % requests.size()]));

  Series work, balance, bytes, bounds;
  int allowed = 0, kept = 0;
  for (const Request& request : requests) {
    const Metrics metrics = measure(*make_plan(request));
    const auto ring = static_cast<double>(metrics.ring_bytes_total);
    const double of_ring = static_cast<double>(metrics.sent_bytes_total) / ring;
    const double bound = static_cast<double>(metrics.bound.key_value_bytes) / ring;
    work.add(metrics.work_max_over_mean);
    balance.add(metrics.tokens_max_over_mean);
    bytes.add(of_ring);
    bounds.add(bound);
    allowed += bound <= 0.03 ? 1 : 0;
    kept += bound <= 0.03 && of_ring <= 0.03 ? 1 : 0;
  }
  state.counters["work_mean"] = work.sum / kBatches;
  state.counters["work_worst"] = work.worst;
  state.counters["tokens_mean"] = balance.sum / kBatches;
  state.counters["tokens_worst"] = balance.worst;
  state.counters["bytes_mean"] = bytes.sum / kBatches;
  state.counters["bound_mean"] = bounds.sum / kBatches;
  state.counters["allowed"] = allowed;
  state.counters["kept"] = kept;
}

void register_all() {
  for (const auto& [name, file] :
       {std::pair{"prolong", "prolong_20000.txt"}, std::pair{"wikipedia", "wikipedia_20000.txt"}}) {
    for (const auto& [ranks, tokens] :
         {std::pair<int32_t, int64_t>{8, 256 << 10}, {32, 1 << 20}, {64, 2 << 20}, {128, 4 << 20}, {1024, 16 << 20}}) {
      const std::string title = std::string("place/") + name + "/" + std::to_string(ranks) + "_ranks";
      benchmark::RegisterBenchmark(title.c_str(), place_batches, std::string(file), ranks, tokens)
          ->Unit(benchmark::kMillisecond);
    }
  }
}
const bool kRegistered = (register_all(), true);

}  // namespace
}  // namespace evenspan::plan
