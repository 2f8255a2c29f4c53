#include "calibrate/bench.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/tensor.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <chrono>
#include <limits>

namespace evenspan::calibrate {
namespace {

using Clock = std::chrono::steady_clock;

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
  std::vector<double> least(tasks_.size(), std::numeric_limits<double>::max());
  bool goes_on = true;
  for (num_rounds_ = 0; goes_on; ++num_rounds_) {
    for (size_t task = 0; task < tasks_.size(); ++task) {
      comm::barrier(communicator, "calibrate");
      const Clock::time_point start = Clock::now();
      tasks_[task].run();
      finish_device(device);
      least[task] = std::min(least[task], since(start));
    }
    // Rank 0 decides, so that all ranks make as many rounds.
    const at::Tensor elapsed = tensor_of({since(begin)}, device);
    comm::broadcast(communicator, Rank(0), elapsed, "calibrate");
    goes_on = num_rounds_ < 1 || elapsed.item<double>() < seconds;
  }
  const at::Tensor sum = comm::all_reduce(communicator, tensor_of(least, device), "calibrate").cpu();
  seconds_.clear();
  for (size_t task = 0; task < tasks_.size(); ++task) {
    seconds_.push_back(sum[static_cast<int64_t>(task)].item<double>() / communicator.size() / tasks_[task].times);
  }
}

}  // namespace evenspan::calibrate
