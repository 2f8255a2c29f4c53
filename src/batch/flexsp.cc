// FlexSP (arXiv 2412.01523): documents cut into micro-batches by length; in each, groups of powers of two and the
// documents of each by a mixed-integer program over length buckets.
#include <algorithm>
#include <cmath>
#include <limits>

#include "batch/buckets.h"
#include "batch/groups.h"
#include "batch/table.h"
#include "evenspan/core/error.h"

namespace evenspan::batch {
namespace {

constexpr int64_t kCountsTried = 5;  // of micro-batches, from the fewest on
constexpr double kInfinite = std::numeric_limits<double>::infinity();

// The program of one micro-batch. Column 0 is the time of the slowest group; then come a column for each slot, whether
// its group is used, and for each slot and bucket, how many of the bucket's documents the group has.
class Program {
 public:
  Program(std::span<const DocumentIndex> documents, std::span<const int64_t> lengths, const Cost& cost, bool prune)
      : lengths_(lengths), cost_(cost), buckets_(make_buckets_for(documents, lengths, cost)), prune_(prune) {
    for (const Bucket& bucket : buckets_) needed_.push_back(least_power_of_two(bucket.length, cost));
    make_slots();
    make_columns();
    make_rows();
  }

  const Milp& milp() const { return milp_; }

  // The best start of the published code: groups of one degree, the longest documents first, each to the group with
  // fewest tokens. Empty: none holds the documents.
  std::vector<double> start() const {
    std::vector<double> best;
    for (int32_t degree = 1; degree <= cost_.num_ranks; degree *= 2) {
      std::vector<size_t> slots;
      for (size_t p = 0; p < slots_.size(); ++p) {
        if (slots_[p] == degree) slots.push_back(p);
      }
      if (static_cast<int32_t>(slots.size()) * degree != largest_sum()) continue;
      std::vector<double> values = start_with(degree, slots);
      if (!values.empty() && (best.empty() || values[0] < best[0])) best = std::move(values);
    }
    return best;
  }

  std::vector<Group> groups(const std::vector<double>& values) const {
    std::vector<Group> out;
    std::vector<size_t> used(buckets_.size(), 0);
    for (size_t p = 0; p < slots_.size(); ++p) {
      Group group{slots_[p], {}, 0, 0};
      for (size_t q = 0; q < buckets_.size(); ++q) {
        if (needed_[q] > slots_[p]) continue;
        const auto count = static_cast<size_t>(std::llround(values[count_column(p, q)]));
        for (size_t i = 0; i < count; ++i) group.add(buckets_[q].documents[used[q]++], lengths_, cost_);
      }
      if (!group.documents.empty()) out.push_back(std::move(group));
    }
    return out;
  }

 private:
  int32_t largest_sum() const { return cost_.num_ranks; }

  // All groups that could exist, or those of the published code: none of one rank, and below the largest degree that a
  // document needs only as many as fit beside the groups of that degree that such documents need.
  void make_slots() {
    const int32_t largest = needed_.back();
    int64_t tokens = 0;
    for (size_t q = 0; q < buckets_.size(); ++q) {
      if (needed_[q] != largest) continue;
      for (const DocumentIndex document : buckets_[q].documents) tokens += lengths_[static_cast<size_t>(document)];
    }
    const int64_t room = int64_t{largest} * cost_.capacity_tokens;
    const int64_t beside = cost_.num_ranks - largest * ((tokens + room - 1) / room);
    for (int32_t degree = cost_.num_ranks; degree >= 1; degree /= 2) {
      if (prune_ && degree == 1 && cost_.num_ranks > 1) continue;
      const bool few = prune_ && degree < largest;
      const int64_t count = few ? std::max<int64_t>(0, beside / degree) : cost_.num_ranks / degree;
      slots_.insert(slots_.end(), static_cast<size_t>(count), degree);
    }
  }

  size_t used_column(size_t slot) const { return 1 + slot; }
  size_t count_column(size_t slot, size_t bucket) const { return 1 + slots_.size() + slot * buckets_.size() + bucket; }
  static Milp::Entry entry(size_t column, double value) { return Milp::Entry{static_cast<int32_t>(column), value}; }

  // Seconds of one document of the bucket on each of the slot's ranks.
  double seconds(size_t slot, size_t bucket) const {
    const auto length = static_cast<double>(buckets_[bucket].length);
    return (cost_.work(buckets_[bucket].length) + cost_.exchange(slots_[slot]) * length) / slots_[slot];
  }

  void make_columns() {
    milp_.columns.push_back(Milp::Column{1, 0, kInfinite, false});
    for (size_t p = 0; p < slots_.size(); ++p) milp_.columns.push_back(Milp::Column{0, 0, 1, true});
    for (size_t p = 0; p < slots_.size(); ++p) {
      for (size_t q = 0; q < buckets_.size(); ++q) {
        const double most = needed_[q] > slots_[p] ? 0 : static_cast<double>(buckets_[q].documents.size());
        milp_.columns.push_back(Milp::Column{0, 0, most, true});
      }
    }
  }

  void make_rows() {
    double documents = 0;
    for (const Bucket& bucket : buckets_) documents += static_cast<double>(bucket.documents.size());
    Milp::Row ranks{prune_ ? double(cost_.num_ranks) : 0, double(cost_.num_ranks), {}};
    for (size_t p = 0; p < slots_.size(); ++p) {
      Milp::Row time{-kInfinite, 0, {entry(0, -1)}};
      Milp::Row tokens{-kInfinite, static_cast<double>(cost_.capacity_tokens * slots_[p]), {}};
      Milp::Row most{-kInfinite, 0, {entry(used_column(p), -documents)}};
      Milp::Row least{-kInfinite, 0, {entry(used_column(p), 1)}};
      for (size_t q = 0; q < buckets_.size(); ++q) {
        if (needed_[q] > slots_[p]) continue;
        time.entries.push_back(entry(count_column(p, q), seconds(p, q)));
        tokens.entries.push_back(entry(count_column(p, q), static_cast<double>(buckets_[q].length)));
        most.entries.push_back(entry(count_column(p, q), 1));
        least.entries.push_back(entry(count_column(p, q), -1));
      }
      ranks.entries.push_back(entry(used_column(p), slots_[p]));
      for (Milp::Row* row : {&time, &tokens, &most, &least}) milp_.rows.push_back(std::move(*row));
      // Of equal slots the first ones are used.
      if (p > 0 && slots_[p - 1] == slots_[p]) {
        milp_.rows.push_back(Milp::Row{-kInfinite, 0, {entry(used_column(p), 1), entry(used_column(p - 1), -1)}});
      }
    }
    milp_.rows.push_back(std::move(ranks));
    for (size_t q = 0; q < buckets_.size(); ++q) {
      const auto count = static_cast<double>(buckets_[q].documents.size());
      Milp::Row all{count, count, {}};
      for (size_t p = 0; p < slots_.size(); ++p) {
        if (needed_[q] <= slots_[p]) all.entries.push_back(entry(count_column(p, q), 1));
      }
      milp_.rows.push_back(std::move(all));
    }
  }

  std::vector<double> start_with(int32_t degree, const std::vector<size_t>& slots) const {
    if (needed_.back() > degree) return {};
    std::vector<double> values(milp_.columns.size(), 0);
    std::vector<int64_t> tokens(slots.size(), 0);
    std::vector<double> times(slots.size(), 0);
    for (size_t q = buckets_.size(); q-- > 0;) {
      for (size_t i = 0; i < buckets_[q].documents.size(); ++i) {
        const auto least = static_cast<size_t>(std::min_element(tokens.begin(), tokens.end()) - tokens.begin());
        tokens[least] += buckets_[q].length;
        if (tokens[least] > cost_.capacity_tokens * degree) return {};
        times[least] += seconds(slots[least], q);
        values[count_column(slots[least], q)] += 1;
        values[used_column(slots[least])] = 1;
      }
    }
    if (prune_ && *std::min_element(tokens.begin(), tokens.end()) == 0) return {};  // all ranks must be used
    values[0] = *std::max_element(times.begin(), times.end());
    return values;
  }

  std::span<const int64_t> lengths_;
  const Cost& cost_;
  std::vector<Bucket> buckets_;  // the shortest first
  bool prune_;
  std::vector<int32_t> needed_;  // [bucket], the smallest degree that holds one of its documents
  std::vector<int32_t> slots_;   // degrees of the groups that may be used, descending
  Milp milp_;
};

}  // namespace

PlannedStep plan_flexsp(std::span<const int64_t> lengths, const Cost& cost, const PlannerOptions& options,
                        const SolverSource& solver) {
  if (!(options.solver_seconds > 0 && std::isfinite(options.solver_seconds))) {
    fail_invalid("[batch] the program of a micro-batch may take ", options.solver_seconds,
                 " s; the planner flexsp needs a time above 0");
  }
  check_power_of_two_ranks("flexsp", cost);
  const std::vector<DocumentIndex> documents = longest_first(lengths);
  const StepBound bound = lower_bound(lengths, cost);
  PlannedStep best;
  double best_seconds = kInfinite;
  const auto most = static_cast<int64_t>(documents.size());
  int64_t fewest = bound.least_micro_batches;
  for (int64_t count = fewest; count <= most && count < fewest + kCountsTried; ++count) {
    const std::vector<size_t> ends = cut_evenly(documents, lengths, count);
    int64_t largest = 0;
    for (size_t b = 0; b < ends.size(); ++b) {
      int64_t tokens = 0;
      for (size_t i = b == 0 ? 0 : ends[b - 1]; i < ends[b]; ++i) tokens += lengths[static_cast<size_t>(documents[i])];
      largest = std::max(largest, tokens);
    }
    if (largest > cost.cluster_tokens()) {
      if (count == fewest) ++fewest;
      continue;
    }
    // More micro-batches than can be better need no program.
    double seconds =
        bound.work_seconds + bound.exchange_seconds + cost.micro_batch_seconds * static_cast<double>(count);
    if (seconds >= best_seconds) break;
    StepPlan plan;
    for (size_t b = 0; b < ends.size(); ++b) {
      const size_t begin = b == 0 ? 0 : ends[b - 1];
      const std::span<const DocumentIndex> own(documents.data() + begin, ends[b] - begin);
      const Program program(own, lengths, cost, options.prune_slots);
      const MilpSolution solution = solver().solve(program.milp(), program.start(), options.solver_seconds);
      ++best.num_programs;
      best.num_proven += solution.is_optimal ? 1 : 0;
      if (!solution.values) break;
      plan.micro_batches.push_back(place_groups(program.groups(*solution.values), lengths));
    }
    if (plan.micro_batches.size() < ends.size()) continue;
    seconds = price(plan, lengths, cost).seconds;
    if (seconds < best_seconds) {
      best_seconds = seconds;
      best.plan = std::move(plan);
    }
  }
  if (best.plan.micro_batches.empty()) {
    fail(ErrorKind::resource, "[batch] the planner flexsp found no groups within ", options.solver_seconds,
         " s a micro-batch; give it more time, raise the memory, or use another planner");
  }
  return best;
}

}  // namespace evenspan::batch
