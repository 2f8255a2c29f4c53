#include "train/step_report.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>

#include "evenspan/core/hash.h"
#include "plan/strategy/strategy.h"
#include "train/model_work.h"

namespace evenspan::train {
namespace {

template <class T>
void add(const std::vector<T>& values, std::vector<T>* sums) {
  for (size_t i = 0; i < values.size(); ++i) (*sums)[i] += values[i];
}

template <class T>
double max_over_mean(const std::vector<T>& values) {
  const T sum = std::accumulate(values.begin(), values.end(), T());
  return static_cast<double>(*std::max_element(values.begin(), values.end())) * static_cast<double>(values.size()) /
         static_cast<double>(sum);
}

}  // namespace

void describe_division(const PlannedBatch& planned, StepReport* report) {
  for (const machine::MicroBatches& replica : planned.replicas) {
    report->micro_batches.push_back(static_cast<int64_t>(replica.documents.size()));
    report->modelled_seconds = std::max(report->modelled_seconds, replica.seconds);
    report->bound_seconds = std::max(report->bound_seconds, replica.bound_seconds);
  }
}

void compare_divisions(const PlannedBatch& planned, const comm::Communicator& communicator) {
  Hasher hasher;
  for (const machine::MicroBatches& replica : planned.replicas) {
    hasher.add(static_cast<uint64_t>(replica.documents.size()));
    for (const std::vector<int64_t>& documents : replica.documents) {
      hasher.add(static_cast<uint64_t>(documents.size()));
      for (const int64_t document : documents) hasher.add(document);
    }
  }
  comm::compare(communicator, {{"the documents of replicas and micro-batches", hasher.state()}},
                {"train: division", "divisions of the step", "give every rank the same data and configuration"});
}

ReplicaPlans measure_plans(const PlannedBatch& planned, int32_t num_ranks, const nn::ModelConfig& model,
                           const std::string& transport) {
  ReplicaPlans plans;
  plans.tokens.resize(static_cast<size_t>(num_ranks));
  plans.work.resize(plans.tokens.size());
  for (const PlannedMicroBatch& micro_batch : planned.micro_batches) {
    const plan::Metrics metrics = plan::measure(*micro_batch.plan);
    add(metrics.tokens, &plans.tokens);
    add(metrics.work_seconds, &plans.work);
    const ForwardBytes sent = forward_bytes(model, *micro_batch.plan, metrics, transport);
    plans.forward_bytes += sent.planned;
    plans.ring_bytes += sent.by_ring;
    const plan::Strategy& strategy = plan::find_strategy(micro_batch.plan->request.options.strategy);
    plans.strategies |= uint64_t{1} << (&strategy - plan::strategies().data());
  }
  return plans;
}

int gather_views(const OwnView& own, const comm::Mesh& mesh, const comm::Communicator& communicator,
                 comm::Recorded* recorded, StepReport* report) {
  const int64_t ranks = communicator.size();
  const int64_t in_replica = mesh.sequence_ranks();
  // loss, arena, signal, bytes of attention and of the optimiser to each rank; bytes of one forward, by a ring,
  // strategies, tokens and work of each rank of the replica
  constexpr int64_t kBytes = 3;
  const int64_t plans = kBytes + 2 * ranks, sizes = plans + 3;
  const bool is_first = communicator.rank() % in_replica == 0;
  at::Tensor row = at::zeros({sizes + 2 * in_replica}, at::kDouble);
  auto* numbers = row.mutable_data_ptr<double>();
  numbers[0] = own.loss;
  numbers[1] = static_cast<double>(own.arena_bytes);
  numbers[2] = static_cast<double>(own.signal);
  for (const comm::Recorded::Item& item : recorded->sends) {
    const int64_t group = item.operation.starts_with("optimizer") ? ranks : 0;
    numbers[kBytes + group + item.peer.value] += static_cast<double>(item.num_bytes);
  }
  if (is_first) {
    numbers[plans] = static_cast<double>(own.plans.forward_bytes);
    numbers[plans + 1] = static_cast<double>(own.plans.ring_bytes);
    numbers[plans + 2] = static_cast<double>(own.plans.strategies);
    std::copy(own.plans.tokens.begin(), own.plans.tokens.end(), numbers + sizes);
    std::copy(own.plans.work.begin(), own.plans.work.end(), numbers + sizes + in_replica);
  }
  const std::vector<at::Tensor> rows = comm::all_gather(communicator, row, "train: report");
  recorded->sends.clear();
  int signal = 0;
  uint64_t strategies = 0;
  for (Rank rank(0); rank < ranks; ++rank.value) {
    const auto* r = rows[rank].const_data_ptr<double>();
    report->loss += r[0];
    report->arena_bytes = std::max(report->arena_bytes, static_cast<int64_t>(r[1]));
    signal = std::max(signal, static_cast<int>(r[2]));
    const auto counts = [&](int64_t from, int64_t number, std::vector<int64_t>* to) {
      for (int64_t i = 0; i < number; ++i) to->push_back(static_cast<int64_t>(r[from + i]));
    };
    counts(kBytes, ranks, &report->attention_bytes.emplace_back());
    counts(kBytes + ranks, ranks, &report->optimizer_bytes.emplace_back());
    if (rank % in_replica != 0) continue;
    report->forward_bytes += static_cast<int64_t>(r[plans]);
    report->ring_bytes += static_cast<int64_t>(r[plans + 1]);
    strategies |= static_cast<uint64_t>(r[plans + 2]);
    counts(sizes, in_replica, &report->rank_tokens);
    report->rank_work.insert(report->rank_work.end(), r + sizes + in_replica, r + sizes + 2 * in_replica);
  }
  report->tokens_max_over_mean = max_over_mean(report->rank_tokens);
  report->work_max_over_mean = max_over_mean(report->rank_work);
  for (const plan::Strategy& strategy : plan::strategies()) {
    if ((strategies >> (&strategy - plan::strategies().data()) & 1) == 0) continue;
    report->plan_strategy += (report->plan_strategy.empty() ? "" : ", ") + std::string(strategy.name);
  }
  return signal;
}

std::vector<std::vector<std::vector<int64_t>>> gather_placement(const PlannedBatch& planned, Rank rank_of_replica,
                                                                const comm::Communicator& communicator) {
  std::vector<int64_t> own;  // document, begin, end of each span
  for (const PlannedMicroBatch& micro_batch : planned.micro_batches) {
    for (const plan::PlacedSpan& s : micro_batch.plan->placement.spans(rank_of_replica)) {
      own.insert(own.end(), {micro_batch.documents[static_cast<size_t>(s.document)], s.span.begin, s.span.end});
    }
  }
  const auto size = static_cast<int64_t>(own.size());
  const std::vector<at::Tensor> sizes =
      comm::all_gather(communicator, at::full({1}, size, at::kLong), "train: placement");
  int64_t most = 0;
  for (const at::Tensor& one : sizes) most = std::max(most, one.item<int64_t>());
  own.resize(static_cast<size_t>(most));
  const at::Tensor row = at::from_blob(own.data(), {most}, at::kLong);
  std::vector<std::vector<std::vector<int64_t>>> placement;
  for (const at::Tensor& of_rank : comm::all_gather(communicator, row, "train: placement")) {
    const auto* values = of_rank.const_data_ptr<int64_t>();
    const int64_t end = sizes[placement.size()].item<int64_t>();
    auto& spans = placement.emplace_back();
    for (int64_t i = 0; i < end; i += 3) spans.push_back({values[i], values[i + 1], values[i + 2]});
  }
  return placement;
}

}  // namespace evenspan::train
