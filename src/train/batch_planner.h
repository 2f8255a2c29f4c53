// The micro-batches of batches with the plans of one replica, the next batch's made while one runs.
#pragma once

#include <cstdint>
#include <future>
#include <memory>
#include <optional>
#include <vector>

#include "evenspan/core/progress.h"
#include "evenspan/machine/micro_batches.h"
#include "evenspan/plan/plan_cache.h"
#include "evenspan/train/batches.h"
#include "train/setup.h"

namespace evenspan::train {

struct PlannedMicroBatch {
  std::vector<int64_t> documents;  // of the batch, ascending
  Batch pieces;                    // [i]: documents[i]
  std::shared_ptr<const plan::Plan> plan;
};

struct PlannedBatch {
  std::vector<machine::MicroBatches> replicas;   // [replica]: the batch, divided and cut
  std::vector<PlannedMicroBatch> micro_batches;  // of the own replica, as they run; empty where it has no document
};

// Every rank has its own. One thread at a time calls.
class BatchPlanner {
 public:
  // Plans are those of `replica`. `make` makes the plan of a micro-batch, on any thread. At least `capacity` plans are
  // kept, and those of the batch that comes next. `sink` shows what is waited for. REQUIRES: `setup` outlives this.
  BatchPlanner(const Setup& setup, int32_t replica, plan::PlanCache::Make make, size_t capacity, ProgressSink sink);

  // Begins to divide and cut the batch and to plan the replica's micro-batches, in the background. What that throws
  // comes from get(). REQUIRES: get() has taken the last one.
  void prefetch(Batch batch);

  // Waits for what prefetch() began, or does it here. REQUIRES: `batch` is the one that prefetch() was given last,
  // where no get() has come since.
  PlannedBatch get(const Batch& batch);

  plan::PlanCache::Counts counts() const { return plans_.counts(); }

 private:
  plan::Request request(const Batch& pieces) const;
  std::vector<machine::MicroBatches> begin(const Batch& batch);

  const Setup& setup_;
  const size_t replica_;
  const ProgressSink sink_;
  plan::PlanCache plans_;
  double seconds_ = 0;  // that the last batch was waited for
  struct Next {
    Batch batch;
    std::future<std::vector<machine::MicroBatches>> replicas;
  };
  std::optional<Next> next_;  // last: its thread uses all of the above
};

}  // namespace evenspan::train
