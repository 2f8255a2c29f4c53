// Evenspan's own planner. Documents of like length make up a micro-batch, since they even each other in time and in
// tokens at once, and since the longest ones then have the longest micro-batch, in which they need the fewest ranks.
// How many micro-batches and where they end is chosen by an estimate; ranks get their documents by pouring (pour.h).
// Where documents are few, evening is a matter of which of them go together, and all ways to divide them are looked at
// (divide.h).
#include <algorithm>
#include <limits>

#include "batch/divide.h"
#include "batch/groups.h"
#include "batch/pour.h"
#include "batch/table.h"
#include "evenspan/core/error.h"

namespace evenspan::batch {
namespace {

constexpr int64_t kBatchesTried = 2;   // numbers of micro-batches, from the least on
constexpr int64_t kLeastPlaces = 128;  // where micro-batches may end, and how many more for each micro-batch
constexpr int64_t kPlacesOfBatch = 8;
// Of the memory that even micro-batches leave, how much the fullest may have: compositions are tried with each.
constexpr double kFills[] = {1, 0.97, 0.94, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.03};

struct Cuts {
  std::vector<size_t> ends;       // of the micro-batches, among the documents; empty: there are none
  std::vector<double> estimates;  // of each
  double seconds = 0;             // their sum
};

// Documents, longest first, cut into micro-batches of neighbours: documents of like length even each other in time and
// in tokens at once, and the longest ones share the longest micro-batch.
class Composition {
 public:
  Composition(std::span<const DocumentIndex> documents, std::span<const int64_t> lengths, const Cost& cost)
      : documents_(documents), lengths_(lengths), cost_(cost), tokens_{0}, work_{0} {
    for (const DocumentIndex document : documents) {
      const int64_t length = lengths[static_cast<size_t>(document)];
      tokens_.push_back(tokens_.back() + length);
      work_.push_back(work_.back() + cost.work(length));
    }
    const size_t n = documents.size();
    const int64_t num_batches = tokens_.back() / cost.cluster_tokens() + 1;
    const auto num_places = static_cast<double>(std::max(kLeastPlaces, kPlacesOfBatch * num_batches));
    places_.push_back(0);
    for (size_t i = 1; i <= n; ++i) {
      const double part = static_cast<double>(tokens_[i]) / static_cast<double>(tokens_[n]) * num_places;
      if (i == n || part >= static_cast<double>(places_.size())) places_.push_back(i);
    }
    const size_t m = places_.size();
    seconds_.assign(m * m, -1);
  }

  double tokens() const { return static_cast<double>(tokens_.back()); }

  // `num_batches` micro-batches of at most `fill` of the memory, with the least sum of estimates.
  Cuts cut(int64_t num_batches, double fill) {
    const size_t m = places_.size();
    const double most = fill * static_cast<double>(cost_.cluster_tokens());
    constexpr double kNone = std::numeric_limits<double>::infinity();
    std::vector<double> least(m, kNone);  // of the first b micro-batches, which end at place i
    least[0] = 0;
    std::vector<std::vector<size_t>> from;
    for (int64_t b = 0; b < num_batches; ++b) {
      std::vector<double> next(m, kNone);
      from.emplace_back(m, 0);
      for (size_t i = 0; i < m; ++i) {
        if (least[i] == kNone) continue;
        for (size_t j = i + 1; j < m; ++j) {
          if (static_cast<double>(tokens_[places_[j]] - tokens_[places_[i]]) > most) break;
          const double seconds = least[i] + estimate(i, j);
          if (seconds < next[j]) {
            next[j] = seconds;
            from.back()[j] = i;
          }
        }
      }
      least = std::move(next);
    }
    if (least[m - 1] == kNone) return {};
    Cuts cuts;
    cuts.seconds = least[m - 1];
    size_t at = m - 1;
    for (size_t b = from.size(); b-- > 0;) {
      cuts.ends.push_back(places_[at]);
      cuts.estimates.push_back(estimate(from[b][at], at));
      at = from[b][at];
    }
    std::reverse(cuts.ends.begin(), cuts.ends.end());
    std::reverse(cuts.estimates.begin(), cuts.estimates.end());
    return cuts;
  }

 private:
  // The least seconds in which the documents between two places can be done when all ranks are even: each on as few
  // ranks as let it be done then.
  double estimate(size_t from, size_t to) {
    double& known = seconds_[from * places_.size() + to];
    if (known >= 0) return known;
    const double work = work_[places_[to]] - work_[places_[from]];
    const auto mean = [&](double seconds) {
      double all = work;
      for (size_t i = places_[from]; i < places_[to]; ++i) {
        const int64_t length = lengths_[static_cast<size_t>(documents_[i])];
        const int32_t degree = degree_within(length, seconds, cost_);
        if (degree == 0) return std::numeric_limits<double>::infinity();
        if (degree == 1) break;
        all += cost_.exchange(degree) * static_cast<double>(length);
      }
      return all / cost_.num_ranks;
    };
    double below = work / cost_.num_ranks, above = below;
    while (mean(above) > above) above *= 1.25;
    for (int i = 0; i < 8 && below < above; ++i) {
      const double middle = (below + above) / 2;
      (mean(middle) > middle ? below : above) = middle;
    }
    return known = above;
  }

  std::span<const DocumentIndex> documents_;
  std::span<const int64_t> lengths_;
  const Cost& cost_;
  std::vector<int64_t> tokens_;  // [documents + 1], of the first ones
  std::vector<double> work_;     // the same
  std::vector<size_t> places_;   // ascending, 0 and all documents among them
  std::vector<double> seconds_;  // [place][place], below 0: unknown
};

// Places the documents of a micro-batch anew where that is faster.
void pour_again(std::span<const int64_t> lengths, const Cost& cost, MicroBatch* micro_batch) {
  std::vector<DocumentIndex> documents;
  for_each_document(*micro_batch, [&](std::span<const Share> shares) { documents.push_back(shares.front().document); });
  std::stable_sort(documents.begin(), documents.end(), [&](DocumentIndex a, DocumentIndex b) {
    return lengths[static_cast<size_t>(a)] > lengths[static_cast<size_t>(b)];
  });
  const double seconds = price(StepPlan{{*micro_batch}}, lengths, cost).seconds - cost.micro_batch_seconds;
  std::optional<Poured> poured = pour(documents, lengths, cost, seconds, Effort::thorough);
  if (poured && poured->seconds < seconds) *micro_batch = std::move(poured->batch);
}

}  // namespace

PlannedStep plan_evenspan(std::span<const int64_t> lengths, const Cost& cost, const PlannerOptions&,
                          const SolverSource&) {
  const std::vector<DocumentIndex> documents = longest_first(lengths);
  const int64_t least = lower_bound(lengths, cost).least_micro_batches;
  Composition composition(documents, lengths, cost);
  PlannedStep best;
  double best_seconds = std::numeric_limits<double>::infinity();
  const auto most = static_cast<int64_t>(documents.size());
  for (int64_t count = least; count <= most; ++count) {
    if (count >= least + kBatchesTried && !best.plan.micro_batches.empty()) break;
    std::vector<size_t> before;
    const double even = composition.tokens() / static_cast<double>(count * cost.cluster_tokens());
    for (const double part : kFills) {
      const Cuts cuts = composition.cut(count, even + (1 - even) * part);
      if (cuts.ends.empty() || cuts.ends == before) continue;
      before = cuts.ends;
      StepPlan plan;
      double seconds = cuts.seconds + cost.micro_batch_seconds * static_cast<double>(count);  // at least
      size_t begin = 0;
      for (size_t b = 0; b < cuts.ends.size() && seconds < best_seconds; ++b) {
        const double estimate = cuts.estimates[b];
        std::optional<Poured> poured = pour(std::span(documents).subspan(begin, cuts.ends[b] - begin), lengths, cost,
                                            estimate + best_seconds - seconds);
        seconds += poured ? poured->seconds - estimate : std::numeric_limits<double>::infinity();
        if (poured) plan.micro_batches.push_back(std::move(poured->batch));
        begin = cuts.ends[b];
      }
      if (seconds < best_seconds) {
        best_seconds = seconds;
        best.plan = std::move(plan);
      }
    }
  }
  EVENSPAN_CHECK_EQ(best.plan.micro_batches.empty(), false);  // a document alone always fits
  for (MicroBatch& micro_batch : best.plan.micro_batches) pour_again(lengths, cost, &micro_batch);
  best_seconds = price(best.plan, lengths, cost).seconds;
  if (documents.size() <= kFewDocuments) {
    StepPlan divided = divide_few(documents, lengths, cost, best_seconds);
    if (!divided.micro_batches.empty()) best.plan = std::move(divided);
  }
  return best;
}

}  // namespace evenspan::batch
