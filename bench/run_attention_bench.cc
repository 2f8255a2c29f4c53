// Attention forward + backward on one rank: through the executor, beside the same kernel called directly, document by
// document, as one would without Evenspan. Both take turns; `of_direct` is the direct calls' median time over the
// executor's. Target: at least 0.97. EVENSPAN_BENCH_THREADS sets the threads of both (default 1).
#include <ATen/Parallel.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "benchmark/benchmark.h"
#include "evenspan/comm/communicator.h"
#include "evenspan/plan/plan.h"
#include "evenspan/run/executable.h"
#include "run/entry.h"

namespace evenspan::run {
namespace {

struct Inputs {
  at::Tensor query, key, value, grad_output;
};

at::Tensor kernel_layout(const at::Tensor& x, int64_t row, int64_t rows) {
  return x.narrow(0, row, rows).transpose(0, 1).unsqueeze(0);
}

// Gradients of one tensor each, as a model needs them.
struct Direct {
  at::Tensor output, grad_query, grad_key, grad_value;

  void run(const std::vector<int64_t>& lengths, const Inputs& x) {
    output = at::empty_like(x.query);
    std::vector<at::Tensor> lse;
    int64_t row = 0;
    for (const int64_t rows : lengths) {
      const auto part = [&](const at::Tensor& t) { return kernel_layout(t, row, rows); };
      const auto result =
          at::_scaled_dot_product_flash_attention_for_cpu(part(x.query), part(x.key), part(x.value), 0.0, true);
      part(output).copy_(std::get<0>(result));
      lse.push_back(std::get<1>(result));
      row += rows;
    }
    grad_query = at::empty_like(x.query);
    grad_key = at::empty_like(x.key);
    grad_value = at::empty_like(x.value);
    row = 0;
    for (size_t i = 0; i < lengths.size(); ++i) {
      const auto part = [&](const at::Tensor& t) { return kernel_layout(t, row, lengths[i]); };
      const auto [query, key, value] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
          part(x.grad_output), part(x.query), part(x.key), part(x.value), part(output), lse[i], 0.0, true);
      part(grad_query).copy_(query);
      part(grad_key).copy_(key);
      part(grad_value).copy_(value);
      row += lengths[i];
    }
  }
};

// The executor adds up in another order and short documents of 16 bits in 32; the kernel's exponentials have 20 bits,
// and its sums of 16 bits are off by several roundings.
bool is_near(const at::Tensor& a, const at::Tensor& b) {
  const double roundings = 16 * (a.scalar_type() == at::kFloat ? 0x1p-20 : 0x1p-8);
  return at::allclose(a.to(at::kFloat), b.to(at::kFloat), roundings, roundings);
}

double seconds(const std::function<void()>& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

void forward_backward(benchmark::State& state, const std::vector<int64_t>& lengths, plan::ElementType type) {
  const char* threads = std::getenv("EVENSPAN_BENCH_THREADS");
  at::set_num_threads(threads != nullptr ? std::max(1, std::atoi(threads)) : 1);
  plan::Request request;
  request.documents = plan::Documents(lengths, plan::Mask{});
  request.shape = plan::AttentionShape{8, 2, 64, type};
  request.topology = plan::make_topology(1, 1);
  request.options.strategy = "sequence_aware";
  const auto plan = plan::make_plan(request);
  const Executable executable(plan, comm::make_threads_communicators(1, {}).front());
  const int64_t tokens = request.documents.total_tokens();
  const auto random = [&](int64_t heads) { return at::randn({tokens, heads, 64}).to(scalar_type(type)); };
  const Inputs x{random(8), random(2), random(2), random(8)};

  // The rank's rows are in the order of its placement, which the direct calls follow.
  std::vector<int64_t> placed;
  for (const plan::PlacedSpan& span : plan->placement.spans(Rank(0))) placed.push_back(span.span.size());
  Direct direct;
  Executable::Entry::Gradients gradients;
  const auto run_executor = [&] {
    const auto forward = executable.entry()->forward(x.query, x.key, x.value);
    gradients = executable.entry()->backward(x.grad_output, x.query, x.key, x.value, forward.output, forward.saved);
  };
  std::vector<double> of_direct, of_executor;
  direct.run(placed, x);
  run_executor();
  if (!is_near(gradients.key, direct.grad_key) || !is_near(gradients.query, direct.grad_query)) {
    state.SkipWithError("the executor's gradients are not the kernel's");
    return;
  }
  for (auto _ : state) {
    of_direct.push_back(seconds([&] { direct.run(placed, x); }));
    of_executor.push_back(seconds(run_executor));
    state.SetIterationTime(of_executor.back());
  }
  state.counters["direct_ms"] = median(of_direct) * 1e3;
  state.counters["executor_ms"] = median(of_executor) * 1e3;
  state.counters["of_direct"] = median(of_direct) / median(of_executor);
}

std::vector<int64_t> long_tailed() { return {4096, 1700, 900, 512, 300, 211, 150, 120, 80, 50, 40, 20, 10, 3}; }
// 128 documents of 33 to 96 tokens, no two neighbours alike.
std::vector<int64_t> short_documents() {
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < 128; ++i) lengths.push_back(33 + i * 37 % 64);
  return lengths;
}

void register_all() {
  const std::vector<std::pair<const char*, std::vector<int64_t>>> batches = {
      {"one_long", {8192}},
      {"eight_equal", std::vector<int64_t>(8, 1024)},
      {"long_tailed", long_tailed()},
      {"short_mixed", short_documents()},
      {"short_equal", std::vector<int64_t>(128, 64)},
      {"tiny", std::vector<int64_t>(1024, 8)},
  };
  for (const auto& [name, lengths] : batches) {
    for (const auto& [type_name, type] :
         {std::pair{"bf16", plan::ElementType::bf16}, std::pair{"f32", plan::ElementType::f32}}) {
      const std::string title = std::string("forward_backward/") + name + "/" + type_name;
      benchmark::RegisterBenchmark(title.c_str(), forward_backward, lengths, type)
          ->UseManualTime()
          ->Unit(benchmark::kMillisecond)
          ->MinTime(3.0);
    }
  }
}
const bool kRegistered = (register_all(), true);

}  // namespace
}  // namespace evenspan::run
