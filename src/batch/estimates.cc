#include "batch/estimates.h"

#include <algorithm>
#include <cmath>

namespace evenspan::batch {
namespace {

constexpr double kDeadlineStep = 1.01;
// Deadlines end there, as a part of the mean micro-batch's time in as few as hold all: no composition has a shorter one
// that matters.
constexpr double kShortestPart = 1.0 / 8;

}  // namespace

Estimates::Estimates(std::span<const DocumentIndex> documents, std::span<const int64_t> lengths, const Cost& cost)
    : cost_(cost), tokens_{0}, work_seconds_{0} {
  double longest = 0, fullest = 0, all = 0;  // seconds: of a document, of the first micro-batch, of all
  for (const DocumentIndex document : documents) {
    const int64_t length = lengths[static_cast<size_t>(document)];
    tokens_.push_back(tokens_.back() + length);
    work_seconds_.push_back(work_seconds_.back() + cost.work(length));
    const int32_t degree = cost.least_degree(length);
    const double seconds = cost.work(length) + cost.exchange(degree) * static_cast<double>(length);
    longest = std::max(longest, seconds / degree);
    all += seconds / cost.num_ranks;
    if (tokens_.back() <= cost.cluster_tokens()) fullest = all;
  }
  const double part = static_cast<double>(cost.cluster_tokens()) / static_cast<double>(tokens_.back());
  const double shortest = all * std::min(part, 1.0) * kShortestPart;
  double seconds = 2 * std::max(longest, fullest);  // enough for any micro-batch that memory lets be even
  do {
    Deadline& deadline = deadlines_.emplace_back();
    deadline.seconds = seconds;
    for (size_t i = 0; i < kSpreads.size(); ++i) deadline.placements[i] = place(seconds, kSpreads[i]);
    seconds /= kDeadlineStep;
  } while (seconds > shortest);
}

double Estimates::seconds(const Members& members) const {
  const double work = sum(work_seconds_, members);
  const auto spare = static_cast<double>(cost_.cluster_tokens() - tokens(members));
  const auto mean = [&](const Placement& placement) {
    return (work + between(placement, members).exchange_seconds) / cost_.num_ranks;
  };
  size_t at = 0, below = deadlines_.size();  // the last deadline that is no less than the mean
  while (below - at > 1) {
    const size_t middle = (at + below) / 2;
    (mean(deadlines_[middle].placements[0]) <= deadlines_[middle].seconds ? at : below) = middle;
  }
  // Which deadlines leave room enough is no matter of order: the shortest that has is found one by one.
  for (;; --at) {
    const Deadline& deadline = deadlines_[at];
    for (const Placement& placement : deadline.placements) {
      const bool enough = placement.num_too_long <= members.begin && between(placement, members).lost_tokens <= spare &&
                          mean(placement) <= deadline.seconds;
      if (!enough && at > 0) continue;
      return std::max(mean(placement), at + 1 < deadlines_.size() ? deadlines_[at + 1].seconds : 0);
    }
  }
}

Estimates::Placement Estimates::place(double seconds, double spread) const {
  Placement out;
  out.sums.emplace_back();
  const auto room = static_cast<double>(cost_.capacity_tokens);
  for (size_t i = 0; i < num_documents(); ++i) {
    const int64_t tokens = tokens_[i + 1] - tokens_[i];
    const auto length = static_cast<double>(tokens);
    const double work = (work_seconds_[i + 1] - work_seconds_[i]) / length;  // of a token
    if (tokens <= cost_.capacity_tokens && work * length <= seconds) break;  // whole, and so are all that follow
    const bool is_last = i + 1 == num_documents();
    const double rest =
        is_last ? work  // of a token of the documents that are shorter
                : (work_seconds_.back() - work_seconds_[i + 1]) / static_cast<double>(tokens_.back() - tokens_[i + 1]);
    Sums sums = out.sums.back();
    bool fits = false;
    for (size_t j = 1; j < cost_.exchange_seconds.size() && !fits; ++j) {  // degrees up to 2^j
      const double exchange = cost_.exchange_seconds[j];
      const double token = work + exchange;
      const double by_time = std::min(seconds / token, room);  // tokens of a rank
      // So many that the time left is what others' tokens in the room left take.
      const double beside = std::clamp((seconds - rest * room) / std::max(token - rest, 1e-9 * token), 0.0, by_time);
      const double degree = std::ceil(length / (by_time + spread * (beside - by_time)));
      fits = degree <= static_cast<double>(std::min(int64_t{1} << j, int64_t{cost_.num_ranks}));
      if (!fits) continue;
      const double own = length / degree;
      const double others = std::max(seconds - token * own, 0.0) / rest;
      sums.exchange_seconds += exchange * length;
      sums.lost_tokens += degree * std::max(room - own - others, 0.0);
    }
    if (!fits) out.num_too_long = i + 1;
    out.sums.push_back(sums);
  }
  return out;
}

Estimates::Sums Estimates::between(const Placement& placement, const Members& members) const {
  const size_t last = placement.sums.size() - 1;
  const Sums& begin = placement.sums[std::min(members.begin, last)];
  const Sums& end = placement.sums[std::min(members.end, last)];
  return Sums{end.exchange_seconds - begin.exchange_seconds, end.lost_tokens - begin.lost_tokens};
}

}  // namespace evenspan::batch
