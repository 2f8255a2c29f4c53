#include "calibrate/bench.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/tensor.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <limits>

namespace evenspan::calibrate {
namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double clock_seconds(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

// Seconds in which the calling thread could have run, but others had the cores. 0 where Linux does not say.
double delay_seconds() {
  std::ifstream file("/proc/thread-self/schedstat");
  double ran = 0, delayed = 0;
  file >> ran >> delayed;
  return delayed * 1e-9;
}

struct Moment {
  Clock::time_point time;
  double delay;   // of this thread, until then
  double others;  // seconds that other threads of this process ran, until then
};

constexpr double kReadingSeconds = 2e-4;  // more, and the thread was delayed while it read

Moment begin_moment() {
  for (;;) {
    const Clock::time_point before = Clock::now();
    const double others = clock_seconds(CLOCK_PROCESS_CPUTIME_ID) - clock_seconds(CLOCK_THREAD_CPUTIME_ID);
    const double delay = delay_seconds();
    const Moment moment{Clock::now(), delay, others};
    if (std::chrono::duration<double>(moment.time - before).count() < kReadingSeconds) return moment;
  }
}

// Since the moment, without the time in which other programs had the core: the thread's delay, as far as the other
// threads of this process (Gloo's, for example) do not account for it.
double own_seconds(const Moment& begin) {
  const double elapsed = since(begin.time);
  const double others = clock_seconds(CLOCK_PROCESS_CPUTIME_ID) - clock_seconds(CLOCK_THREAD_CPUTIME_ID) - begin.others;
  const double delay = delay_seconds() - begin.delay;
  const bool delayed_now = since(begin.time) - elapsed > kReadingSeconds;
  return delayed_now ? elapsed : elapsed - std::max(0.0, delay - others);
}

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
      const Moment start = begin_moment();
      tasks_[task].run();
      finish_device(device);
      least[task] = std::min(least[task], own_seconds(start));
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
