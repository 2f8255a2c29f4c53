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

BatchPlanner::BatchPlanner(const Setup& setup, plan::PlanCache::Make make, size_t capacity, ProgressSink sink)
    : setup_(setup), sink_(std::move(sink)), plans_(std::move(make), capacity) {}

plan::Request BatchPlanner::request(const Batch& pieces) const {
  plan::Request request = setup_.request;
  request.documents = plan::Documents(lengths(pieces), plan::Mask{});
  return request;
}

// In the background: cuts the batch and asks for its plans, which one thread then makes in their order.
machine::MicroBatches BatchPlanner::begin(const Batch& batch) {
  machine::MicroBatches cut = setup_.micro_batches.plan(lengths(batch));
  plans_.reserve(cut.documents.size());
  for (const std::vector<int64_t>& documents : cut.documents) plans_.prefetch(request(part_of(batch, documents)));
  return cut;
}

void BatchPlanner::prefetch(Batch batch) {
  EVENSPAN_CHECK_EQ(next_.has_value(), false);
  next_ = Next{batch, std::async(std::launch::async, [this, batch] { return begin(batch); })};
}

PlannedBatch BatchPlanner::get(const Batch& batch) {
  const auto start = std::chrono::steady_clock::now();
  const Waiting waiting(join_text("planning ", batch.size(), " documents"), seconds_, sink_);
  machine::MicroBatches cut;
  if (next_) {
    Next next = *std::exchange(next_, std::nullopt);
    EVENSPAN_CHECK_EQ(next.batch == batch, true);
    cut = next.micro_batches.get();
  } else {
    cut = setup_.micro_batches.plan(lengths(batch));
  }
  PlannedBatch planned;
  planned.modelled_seconds = cut.seconds;
  planned.bound_seconds = cut.bound_seconds;
  for (std::vector<int64_t>& documents : cut.documents) {
    Batch pieces = part_of(batch, documents);
    std::shared_ptr<const plan::Plan> plan = plans_.get(request(pieces)).front();
    planned.micro_batches.push_back({std::move(documents), std::move(pieces), std::move(plan)});
  }
  seconds_ = std::max(seconds_ / 2, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  return planned;
}

}  // namespace evenspan::train
