#include "train/batch_planner.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "evenspan/core/error.h"
#include "train/waiting.h"

namespace evenspan::train {
namespace {

Batch part_of(const Batch& batch, const std::vector<int64_t>& documents) {
  Batch pieces;
  for (const int64_t document : documents) pieces.push_back(batch[static_cast<size_t>(document)]);
  return pieces;
}

}  // namespace

BatchPlanner::BatchPlanner(const Setup& setup, int32_t replica, plan::PlanCache::Make make, size_t capacity,
                           ProgressSink sink)
    : setup_(setup),
      replica_(static_cast<size_t>(replica)),
      sink_(std::move(sink)),
      plans_(std::move(make), capacity) {}

plan::Request BatchPlanner::request(const Batch& pieces) const {
  plan::Request request = setup_.request;
  request.documents = plan::Documents(lengths(pieces), plan::Mask{});
  return request;
}

// In the background: cuts the batch and asks for the plans, which one thread then makes in their order.
std::vector<machine::MicroBatches> BatchPlanner::begin(const Batch& batch) {
  std::vector<machine::MicroBatches> replicas = setup_.micro_batches.divide(lengths(batch));
  const machine::MicroBatches& own = replicas[replica_];
  plans_.reserve(own.documents.size());
  for (const std::vector<int64_t>& documents : own.documents) plans_.prefetch(request(part_of(batch, documents)));
  return replicas;
}

void BatchPlanner::prefetch(Batch batch) {
  EVENSPAN_CHECK_EQ(next_.has_value(), false);
  next_ = Next{batch, std::async(std::launch::async, [this, batch] { return begin(batch); })};
}

PlannedBatch BatchPlanner::get(const Batch& batch) {
  const auto start = std::chrono::steady_clock::now();
  const Waiting waiting(join_text("planning ", batch.size(), " documents"), seconds_, sink_);
  PlannedBatch planned;
  if (next_) {
    Next next = *std::exchange(next_, std::nullopt);
    EVENSPAN_CHECK_EQ(next.batch == batch, true);
    planned.replicas = next.replicas.get();
  } else {
    planned.replicas = setup_.micro_batches.divide(lengths(batch));
  }
  for (const std::vector<int64_t>& documents : planned.replicas[replica_].documents) {
    Batch pieces = part_of(batch, documents);
    std::shared_ptr<const plan::Plan> plan = plans_.get(request(pieces)).front();
    planned.micro_batches.push_back({documents, std::move(pieces), std::move(plan)});
  }
  seconds_ = std::max(seconds_ / 2, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  return planned;
}

}  // namespace evenspan::train
