#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>

#include <algorithm>

#include "calibrate/parts.h"
#include "evenspan/calibrate/fit.h"
#include "run/entry.h"

namespace evenspan::calibrate {
namespace {

using plan::TensorName;

constexpr int64_t kMostPairs = 64;
constexpr int64_t kCopiedRows[] = {4, 32, 256, 1024};
constexpr int64_t kTokens = 512;  // of a matrix product

}  // namespace

MemoryPart::MemoryPart(const Workbench& workbench, Bench* bench) {
  const auto add = [&](std::vector<plan::Operation> operations, int64_t times) {
    plan::Phase program;
    program.operations = std::move(operations);
    return bench->add({[&workbench, program] { workbench.run(program); }, static_cast<double>(times)});
  };
  const auto pair = [&](int64_t rows, int64_t number, plan::Precision precision) {
    return plan::BlockPair{workbench.arena_block(TensorName::query, number * rows, rows, precision),
                           workbench.block(TensorName::query, number * rows, rows)};
  };
  plan::Copy one_row;
  std::vector<plan::Operation> alone;
  for (int64_t i = 0; i < kMostPairs; ++i) {
    one_row.items.push_back(pair(1, i, plan::Precision::input));
    alone.push_back({{}, plan::kNoEvent, plan::Copy{{one_row.items.back()}}});
  }
  operations_ = add(std::move(alone), kMostPairs);
  pairs_ = add({{{}, plan::kNoEvent, std::move(one_row)}}, kMostPairs);
  // Every row is touched once in a round, so that it comes from where a run would find it.
  for (const int64_t rows : kCopiedRows) {
    const int64_t count = std::min(kMostPairs, workbench.num_rows() / rows);
    plan::Copy copy;
    plan::Accumulate accumulate;
    for (int64_t i = 0; i < count; ++i) {
      copy.items.push_back(pair(rows, i, plan::Precision::input));
      accumulate.items.push_back(pair(rows, i, plan::Precision::accumulation));
    }
    const auto bytes = [&](const plan::Block& block) {
      return static_cast<double>(plan::payload_bytes(block, workbench.shape()));
    };
    const double copied = bytes(copy.items[0].to) + bytes(copy.items[0].from);
    const double added = 2 * bytes(accumulate.items[0].to) + bytes(accumulate.items[0].from);
    moved_.push_back({add({{{}, plan::kNoEvent, std::move(copy)}}, count), copied});
    moved_.push_back({add({{{}, plan::kNoEvent, std::move(accumulate)}}, count), added});
  }
}

void MemoryPart::finish(const Bench& bench, simulate::Profile* profile) const {
  std::vector<double> bytes, seconds;
  for (const Moved& moved : moved_) {
    bytes.push_back(moved.bytes);
    seconds.push_back(bench.seconds(moved.task));
  }
  const Line line = fit_line(bytes, seconds);
  profile->memory_bytes_per_second = line.per_second;
  profile->memory_pair_seconds = line.fixed_seconds;
  profile->memory_operation_seconds = std::max(0.0, bench.seconds(operations_) - bench.seconds(pairs_));
}

ProductPart::ProductPart(const Workbench& workbench, c10::Device device, Bench* bench) {
  const auto& shape = workbench.shape();
  const int64_t hidden = int64_t{shape.num_heads} * shape.head_dim, intermediate = 4 * hidden;
  const auto random = [&](int64_t rows, int64_t columns) {
    return at::randn({rows, columns}, at::TensorOptions().device(device)).to(run::scalar_type(shape.element));
  };
  const at::Tensor tokens = random(kTokens, hidden), weight = random(intermediate, hidden);
  const at::Tensor gradient = random(kTokens, intermediate);
  flops_ = 2.0 * kTokens * static_cast<double>(hidden) * static_cast<double>(intermediate);
  forward_ = bench->add({[=] { at::mm(tokens, weight.t()); }});
  backward_ = bench->add({[=] {
    at::mm(gradient, weight);
    at::mm(gradient.t(), tokens);
  }});
}

void ProductPart::finish(const Bench& bench, simulate::Profile* profile) const {
  profile->forward_flops_per_second = flops_ / bench.seconds(forward_);
  profile->backward_flops_per_second = 2 * flops_ / bench.seconds(backward_);
}

}  // namespace evenspan::calibrate
