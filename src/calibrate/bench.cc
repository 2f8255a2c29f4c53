#include "calibrate/bench.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <chrono>
#include <numeric>

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

}  // namespace

size_t Bench::add(Task task) {
  tasks_.push_back(std::move(task));
  return tasks_.size() - 1;
}

void Bench::measure(const comm::Communicator& communicator, c10::Device device, double seconds) {
  const Clock::time_point begin = Clock::now();
  std::vector<std::vector<double>> times(tasks_.size());
  const at::Tensor evicting = at::empty({kEvictedBytes}, at::TensorOptions().dtype(at::kByte).device(device));
  bool goes_on = true;
  for (num_rounds_ = 0; goes_on; ++num_rounds_) {
    for (size_t task = 0; task < tasks_.size(); ++task) {
      tasks_[task].warm ? tasks_[task].run() : void(evicting.fill_(num_rounds_ % 2));
      finish_device(device);
      comm::barrier(communicator, "calibrate");
      const Clock::time_point start = Clock::now();
      tasks_[task].run();
      finish_device(device);
      times[task].push_back(since(start));
    }
    // Rank 0 decides, so that all ranks make as many rounds.
    const at::Tensor elapsed = tensor_of({since(begin)}, device);
    comm::broadcast(communicator, Rank(0), elapsed, "calibrate");
    goes_on = num_rounds_ < 1 || elapsed.item<double>() < seconds;
  }
  std::vector<double> expected;
  expected.reserve(times.size());
  for (std::vector<double>& of_task : times) {
    std::sort(of_task.begin(), of_task.end());
    const int64_t counted = num_rounds_ == 2 ? 1 : (9 * num_rounds_ + 9) / 10;
    expected.push_back(std::accumulate(of_task.begin(), of_task.begin() + counted, 0.0) / static_cast<double>(counted));
  }
  const at::Tensor sum = comm::all_reduce(communicator, tensor_of(expected, device), "calibrate").cpu();
  seconds_.clear();
  for (size_t task = 0; task < tasks_.size(); ++task) {
    seconds_.push_back(sum[static_cast<int64_t>(task)].item<double>() / communicator.size() / tasks_[task].times);
  }
}

}  // namespace evenspan::calibrate
