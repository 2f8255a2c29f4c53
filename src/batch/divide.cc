#include "batch/divide.h"

#include <bit>
#include <limits>

namespace evenspan::batch {
namespace {

constexpr int kTurns = 32;
constexpr double kHardly = 1.002;
constexpr double kNoDivision = std::numeric_limits<double>::infinity();

class Division {
 public:
  Division(std::span<const DocumentIndex> documents, std::span<const int64_t> lengths, const Cost& cost)
      : documents_(documents),
        lengths_(lengths),
        cost_(cost),
        all_((size_t{1} << documents.size()) - 1),
        standard_(standard_sets(lengths_of(all_))),
        seconds_(all_ + 1, kNoDivision),
        is_poured_(all_ + 1, false),
        best_(all_ + 1, 0),
        first_(all_ + 1, 0) {
    for (size_t set = 1; set <= all_; ++set) {
      if (standard_[set] != set) continue;
      const StepBound bound = lower_bound(lengths_of(set), cost);
      if (bound.least_micro_batches == 1) seconds_[set] = bound.seconds;
    }
  }

  StepPlan plan(double most_seconds) {
    std::vector<size_t> best;
    for (int turn = 0; turn < kTurns; ++turn) {
      divide();
      const double least = best_[all_];
      if (least * kHardly >= most_seconds) break;
      double seconds = 0;
      const std::vector<size_t> sets = micro_batches();
      for (const size_t set : sets) {
        pour_set(standard_[set], most_seconds - (least - seconds_[standard_[set]]));
        seconds += seconds_[standard_[set]];
      }
      if (seconds < most_seconds) {
        most_seconds = seconds;
        best = sets;
      }
    }
    StepPlan out;
    for (const size_t set : best) {
      const std::optional<Poured> poured = pour(members(set), lengths_, cost_, {0, kNoDivision}, Effort::quick);
      if (poured) out.micro_batches.push_back(poured->batch);  // as its standard set was
    }
    return out;
  }

 private:
  std::vector<DocumentIndex> members(size_t set) const {
    std::vector<DocumentIndex> out;
    for (; set != 0; set &= set - 1) out.push_back(documents_[static_cast<size_t>(std::countr_zero(set))]);
    return out;
  }

  std::vector<int64_t> lengths_of(size_t set) const {
    std::vector<int64_t> out;
    for (const DocumentIndex document : members(set)) out.push_back(lengths_[static_cast<size_t>(document)]);
    return out;
  }

  // The best way to divide every set, by what is known.
  void divide() {
    for (size_t set = 1; set <= all_; ++set) {
      const size_t rest = set & (set - 1);  // without the longest document
      size_t others = rest;
      first_[set] = set ^ others;
      best_[set] = seconds_[standard_[set ^ others]] + best_[others];
      while (others != 0) {
        others = (others - 1) & rest;
        const double seconds = seconds_[standard_[set ^ others]] + best_[others];
        if (seconds >= best_[set]) continue;
        best_[set] = seconds;
        first_[set] = set ^ others;
      }
    }
  }

  std::vector<size_t> micro_batches() const {
    std::vector<size_t> out;
    for (size_t left = all_; left != 0; left ^= first_[left]) out.push_back(first_[left]);
    return out;
  }

  // A set that takes more than `most_seconds` is in no better plan.
  void pour_set(size_t set, double most_seconds) {
    if (is_poured_[set]) return;
    is_poured_[set] = true;
    const std::optional<Poured> poured =
        pour(members(set), lengths_, cost_, {0, most_seconds - cost_.micro_batch_seconds}, Effort::quick);
    seconds_[set] = poured ? poured->seconds + cost_.micro_batch_seconds : kNoDivision;
  }

  std::span<const DocumentIndex> documents_;
  std::span<const int64_t> lengths_;
  const Cost& cost_;
  size_t all_;
  std::vector<size_t> standard_;
  std::vector<double> seconds_;  // [standard set], as one micro-batch; at least, where it is not poured
  std::vector<bool> is_poured_;  // [standard set]
  std::vector<double> best_;     // [set], in any number of micro-batches
  std::vector<size_t> first_;    // [set], the micro-batch of its longest document there
};

}  // namespace

std::vector<size_t> standard_sets(std::span<const int64_t> lengths) {
  std::vector<size_t> out(size_t{1} << lengths.size(), 0);
  for (size_t set = 1; set < out.size(); ++set) {
    // Of the documents before the last one in the set, and the first of its length that is not there yet.
    const auto last = static_cast<size_t>(std::bit_width(set) - 1);
    out[set] = out[set ^ (size_t{1} << last)];
    size_t place = last;
    while (place > 0 && lengths[place - 1] == lengths[last] && !(out[set] >> (place - 1) & 1)) --place;
    out[set] |= size_t{1} << place;
  }
  return out;
}

StepPlan divide_few(std::span<const DocumentIndex> documents, std::span<const int64_t> lengths, const Cost& cost,
                    double most_seconds) {
  return Division(documents, lengths, cost).plan(most_seconds);
}

}  // namespace evenspan::batch
