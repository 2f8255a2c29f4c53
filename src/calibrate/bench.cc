#include "calibrate/bench.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

namespace evenspan::calibrate {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kEvictedBytes = int64_t{128} << 20;  // more than caches hold

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

void finish_device(c10::Device device) {
  if (device.is_cpu()) return;
  const c10::impl::VirtualGuardImpl guard(device.type());
  guard.synchronizeDevice(device.has_index() ? device.index() : guard.getDevice().index());
}

at::Tensor tensor_of(const std::vector<double>& values, c10::Device device) {
  return at::tensor(values, at::kDouble).to(device);
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + (static_cast<int64_t>(values.size()) - 1) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

size_t Bench::add(Task task) {
  tasks_.push_back(std::move(task));
  return tasks_.size() - 1;
}

void Bench::measure(const comm::Communicator& communicator, c10::Device device, double seconds, const WorkPart& work) {
  const Clock::time_point begin = Clock::now();
  seconds_.assign(tasks_.size(), {});
  int64_t most_samples = 0, samples_of_a_round = 0, num_samples = 0;
  for (const Task& task : tasks_) {
    most_samples = std::max(most_samples, task.samples);
    samples_of_a_round += task.samples;
  }
  int64_t expected_rounds = 2;
  const at::Tensor evicting = at::empty({kEvictedBytes}, at::TensorOptions().dtype(at::kByte).device(device));
  bool goes_on = true;
  for (num_rounds_ = 0; goes_on; ++num_rounds_) {
    for (int64_t sample = 0; sample < most_samples; ++sample) {
      for (size_t task = 0; task < tasks_.size(); ++task) {
        if (sample >= tasks_[task].samples) continue;
        tasks_[task].warm ? tasks_[task].run() : void(evicting.fill_(num_rounds_ % 2));
        finish_device(device);
        comm::barrier(communicator, "calibrate");
        const Clock::time_point start = Clock::now();
        tasks_[task].run();
        finish_device(device);
        seconds_[task].push_back(since(start));
        work.tell(std::min(++num_samples, expected_rounds * samples_of_a_round), expected_rounds * samples_of_a_round);
      }
    }
    // Rank 0 decides, so that all ranks make as many rounds.
    const at::Tensor elapsed = tensor_of({since(begin)}, device);
    comm::broadcast(communicator, Rank(0), elapsed, "calibrate");
    goes_on = num_rounds_ < 1 || elapsed.item<double>() < seconds;
    const double seconds_of_a_round = elapsed.item<double>() / static_cast<double>(num_rounds_ + 1);
    expected_rounds =
        std::max<int64_t>(2, static_cast<int64_t>(std::min(1e6, std::ceil(seconds / seconds_of_a_round))));
  }
  for (size_t task = 0; task < tasks_.size(); ++task) {
    const at::Tensor sum = comm::all_reduce(communicator, tensor_of(seconds_[task], device), "calibrate").cpu();
    const double parts = communicator.size() * tasks_[task].times;
    for (size_t i = 0; i < seconds_[task].size(); ++i) {
      seconds_[task][i] = sum[static_cast<int64_t>(i)].item<double>() / parts;
    }
  }
}

double Bench::seconds(size_t task) const { return median(seconds_[task]); }

double Bench::seconds_above(size_t task, size_t other) const {
  std::vector<double> differences = seconds_[task];
  for (size_t i = 0; i < differences.size(); ++i) differences[i] -= seconds_[other][i];
  return median(std::move(differences));
}

}  // namespace evenspan::calibrate
