// Hybrid context parallelism of Megatron-LM (megatron/core/pipeline_parallel/hybrid_cp_schedule.py; no paper): every
// document on the fewest ranks of a power of two that hold it, micro-batches closed when ranks are even.
//
// As published: the work of a document is s^2 / cp. Documents, longest first, are cut into buckets, each closed at 1.1
// of what the number of different cp makes of all work. The head of the first bucket that has a place goes to the least
// loaded group of its cp, or to free ranks while there are enough. A micro-batch ends where nothing has a place, or
// where ranks are within 5 % after a document with a smaller cp than the first one's. The last document of the fullest
// group goes back while that narrows the gap; then the smallest groups are doubled while ranks are free.
//
// Changed: the published ranks run their documents one after another between two barriers, so each must fit alone. Here
// they are one micro-batch, so a group takes only what it has room for, as in the packed variant of this schedule
// (megatron/core/datasets/data_schedule_utils.py), and a bucket whose head finds no room is passed over. Documents that
// go back are sorted in again. Left out: pipeline stages, and the cut of a document into heads and tails, since shares
// have no place in a document here.
#include <algorithm>
#include <deque>
#include <set>

#include "batch/groups.h"
#include "batch/table.h"

namespace evenspan::batch {
namespace {

constexpr double kBucketWork = 1.1;  // of the mean
constexpr double kEven = 0.05;       // of the slowest rank's work, between it and the least loaded one

class Schedule {
 public:
  Schedule(std::span<const int64_t> lengths, const Cost& cost)
      : lengths_(lengths), cost_(cost), free_(cost.num_ranks) {}

  // What is left of `documents`, the longest first.
  std::vector<DocumentIndex> fill(const std::vector<DocumentIndex>& documents) {
    std::deque<std::deque<DocumentIndex>> buckets = make_buckets(documents);
    const int32_t first_degree = degree(documents.front());
    bool is_smaller = false;
    while (!buckets.empty()) {
      auto bucket = buckets.begin();
      while (bucket != buckets.end() && !place(bucket->front())) ++bucket;
      if (bucket == buckets.end()) break;
      is_smaller = is_smaller || degree(bucket->front()) < first_degree;
      bucket->pop_front();
      if (bucket->empty()) buckets.erase(bucket);
      if (is_smaller && gap() <= kEven * most()) break;
    }
    std::vector<DocumentIndex> left;
    for (const std::deque<DocumentIndex>& bucket : buckets) left.insert(left.end(), bucket.begin(), bucket.end());
    trim(&left);
    std::sort(left.begin(), left.end(),
              [&](DocumentIndex a, DocumentIndex b) { return length(a) != length(b) ? length(a) > length(b) : a < b; });
    return left;
  }

  MicroBatch result() {
    widen_groups(&groups_, cost_.num_ranks);
    return place_groups(std::move(groups_), lengths_);
  }

 private:
  int64_t length(DocumentIndex document) const { return lengths_[static_cast<size_t>(document)]; }
  int32_t degree(DocumentIndex document) const { return least_power_of_two(length(document), cost_); }
  double work(DocumentIndex document) const {
    const auto s = static_cast<double>(length(document));
    return s * s / degree(document);
  }

  std::deque<std::deque<DocumentIndex>> make_buckets(const std::vector<DocumentIndex>& documents) const {
    std::set<int32_t> degrees;
    double all = 0;
    for (const DocumentIndex document : documents) {
      degrees.insert(degree(document));
      all += work(document);
    }
    const double most = kBucketWork * all / static_cast<double>(degrees.size());
    std::deque<std::deque<DocumentIndex>> buckets;
    double own = 0;
    for (const DocumentIndex document : documents) {
      if (buckets.empty() || own + work(document) > most) {
        buckets.emplace_back();
        own = 0;
      }
      buckets.back().push_back(document);
      own += work(document);
    }
    return buckets;
  }

  bool place(DocumentIndex document) {
    const int32_t needed = degree(document);
    size_t best = groups_.size();
    if (needed <= free_) {
      free_ -= needed;
      groups_.push_back(Group{needed, {}, 0, 0});
      loads_.push_back(0);
    } else {
      for (size_t g = 0; g < groups_.size(); ++g) {
        const bool fits = groups_[g].tokens + length(document) <= needed * cost_.capacity_tokens;
        if (groups_[g].degree == needed && fits && (best == groups_.size() || loads_[g] < loads_[best])) best = g;
      }
      if (best == groups_.size()) return false;
    }
    groups_[best].add(document, lengths_, cost_);
    loads_[best] += work(document);
    return true;
  }

  double most() const { return *std::max_element(loads_.begin(), loads_.end()); }
  double least() const { return free_ > 0 ? 0 : *std::min_element(loads_.begin(), loads_.end()); }
  double gap() const { return most() - least(); }

  void trim(std::vector<DocumentIndex>* left) {
    while (least() > 0 && gap() > kEven * most()) {
      const auto fullest = static_cast<size_t>(std::max_element(loads_.begin(), loads_.end()) - loads_.begin());
      Group& group = groups_[fullest];
      if (group.documents.size() == 1) break;
      const DocumentIndex last = group.documents.back();
      const double before = gap();
      const double load = loads_[fullest];
      loads_[fullest] -= work(last);
      if (gap() >= before) {
        loads_[fullest] = load;
        break;
      }
      group.documents.pop_back();
      left->push_back(last);
    }
  }

  std::span<const int64_t> lengths_;
  const Cost& cost_;
  int32_t free_;  // ranks in no group
  std::vector<Group> groups_;
  std::vector<double> loads_;  // [group], of each of its ranks
};

}  // namespace

PlannedStep plan_megatron_hybrid(std::span<const int64_t> lengths, const Cost& cost, const PlannerOptions&,
                                 const SolverSource&) {
  check_power_of_two_ranks("megatron_hybrid", cost);
  PlannedStep step;
  std::vector<DocumentIndex> left = longest_first(lengths);
  while (!left.empty()) {
    Schedule schedule(lengths, cost);
    left = schedule.fill(left);
    step.plan.micro_batches.push_back(schedule.result());
  }
  return step;
}

}  // namespace evenspan::batch
