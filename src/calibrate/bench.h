// Measurements that take turns.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "evenspan/comm/communicator.h"
#include "evenspan/core/work_part.h"

namespace evenspan::calibrate {

// What is timed. All ranks have the same tasks in the same order; `run` may exchange with the others.
struct Task {
  std::function<void()> run;
  double times = 1;     // how often one call of `run` does what is measured
  bool warm = false;    // data are in caches, where they were when a program used them shortly before
  int64_t samples = 1;  // of every round, by turns with the other tasks: more where small differences are wanted
};

// A list of tasks and, once they are measured, their times.
class Bench {
 public:
  // Returns the task's number.
  size_t add(Task task);
  // Rounds of all tasks, each begun by all ranks together: at least two, and more until `seconds` have passed. A task
  // that is not warm finds its data in memory, not in caches, as a layer of a large batch does. On a device, it ends
  // when the device has done it. `work` is told between tasks.
  void measure(const comm::Communicator& communicator, c10::Device device, double seconds, const WorkPart& work);
  // Median of the samples, each the mean of the ranks, the lower one of two, since other programs may disturb some.
  // REQUIRES: measured.
  double seconds(size_t task) const;
  // Median of what a sample of `task` takes longer than that of `other` beside it. REQUIRES: measured, as many samples.
  double seconds_above(size_t task, size_t other) const;
  int64_t num_rounds() const { return num_rounds_; }

 private:
  std::vector<Task> tasks_;
  std::vector<std::vector<double>> seconds_;  // [task][sample], the mean of the ranks
  int64_t num_rounds_ = 0;
};

}  // namespace evenspan::calibrate
