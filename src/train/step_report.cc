#include "train/step_report.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>

#include "train/model_work.h"

namespace evenspan::train {
namespace {

template <class T>
void add(const std::vector<T>& values, std::vector<T>* sums) {
  sums->resize(values.size());
  for (size_t i = 0; i < values.size(); ++i) (*sums)[i] += values[i];
}

template <class T>
double max_over_mean(const std::vector<T>& values) {
  const T sum = std::accumulate(values.begin(), values.end(), T());
  return static_cast<double>(*std::max_element(values.begin(), values.end())) * static_cast<double>(values.size()) /
         static_cast<double>(sum);
}

}  // namespace

void describe_plans(const PlannedBatch& planned, StepReport* report) {
  report->micro_batches = static_cast<int64_t>(planned.micro_batches.size());
  report->modelled_seconds = planned.modelled_seconds;
  report->bound_seconds = planned.bound_seconds;
  std::vector<std::string> names;
  for (const PlannedMicroBatch& micro_batch : planned.micro_batches) {
    const std::string& name = micro_batch.plan->request.options.strategy;
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    names.push_back(name);
    report->plan_strategy += (report->plan_strategy.empty() ? "" : ", ") + name;
  }
}

void measure_plans(const PlannedBatch& planned, const nn::ModelConfig& model, const std::string& transport,
                   StepReport* report) {
  for (const PlannedMicroBatch& micro_batch : planned.micro_batches) {
    const plan::Metrics metrics = plan::measure(*micro_batch.plan);
    add(metrics.tokens, &report->rank_tokens);
    add(metrics.work_seconds, &report->rank_work);
    const ForwardBytes sent = forward_bytes(model, *micro_batch.plan, metrics, transport);
    report->forward_bytes += sent.planned;
    report->ring_bytes += sent.by_ring;
  }
  report->tokens_max_over_mean = max_over_mean(report->rank_tokens);
  report->work_max_over_mean = max_over_mean(report->rank_work);
}

int gather_views(const OwnView& own, const comm::Communicator& communicator, comm::Recorded* recorded,
                 StepReport* report) {
  const int64_t ranks = communicator.size();
  // loss, arena, signal, bytes of attention to each rank, bytes of the optimiser to each rank
  constexpr int64_t kBytes = 3;
  at::Tensor row = at::zeros({kBytes + 2 * ranks}, at::kDouble);
  auto* numbers = row.mutable_data_ptr<double>();
  numbers[0] = own.loss;
  numbers[1] = static_cast<double>(own.arena_bytes);
  numbers[2] = static_cast<double>(own.signal);
  for (const comm::Recorded::Item& item : recorded->sends) {
    const int64_t group = item.operation.starts_with("optimizer") ? ranks : 0;
    numbers[kBytes + group + item.peer.value] += static_cast<double>(item.num_bytes);
  }
  const std::vector<at::Tensor> rows = comm::all_gather(communicator, row, "train: report");
  recorded->sends.clear();
  int signal = 0;
  for (const at::Tensor& tensor : rows) {
    const auto* r = tensor.const_data_ptr<double>();
    report->loss += r[0];
    report->arena_bytes = std::max(report->arena_bytes, static_cast<int64_t>(r[1]));
    signal = std::max(signal, static_cast<int>(r[2]));
    const auto bytes = [&](int64_t from) {
      std::vector<int64_t> to;
      for (int64_t i = 0; i < ranks; ++i) to.push_back(static_cast<int64_t>(r[from + i]));
      return to;
    };
    report->attention_bytes.push_back(bytes(kBytes));
    report->optimizer_bytes.push_back(bytes(kBytes + ranks));
  }
  return signal;
}

}  // namespace evenspan::train
