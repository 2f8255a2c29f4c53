// Evenspan's own planner. Documents of like length make up a micro-batch, since they even each other in time and in
// tokens at once, and since the longest ones then have the longest micro-batch, in which they need the fewest ranks.
// The longest may take some of the shortest along: where memory is short, a rank that spends its time on tokens of long
// documents has room left that only cheap tokens can fill. How many micro-batches there are and where they end is
// chosen by an estimate (compose.h); ranks get the documents of the best compositions by pouring (pour.h). Where
// documents are few, evening is a matter of which of them go together, and all ways to divide them are looked at
// (divide.h).
#include <algorithm>
#include <limits>
#include <map>
#include <utility>

#include "batch/compose.h"
#include "batch/divide.h"
#include "batch/groups.h"
#include "batch/pour.h"
#include "batch/table.h"
#include "evenspan/core/error.h"

namespace evenspan::batch {
namespace {

constexpr int64_t kNumbersTried = 2;    // of micro-batches, from the least on
constexpr int64_t kMostTogether = 256;  // micro-batches that are composed together: that takes their number's square
constexpr size_t kMostPacked = 2048;    // documents for WLB's packs, which take their number's square
// Of the bound: who is nearer is content.
constexpr double kNear = 1.03;
constexpr double kNever = std::numeric_limits<double>::infinity();
// Where pouring begins to look for the least seconds, as a part of those estimated, or found before.
constexpr double kOfEstimate = 0.97;
constexpr double kOfFound = 0.95;

// Chooses a composition by pouring what it decides on: of the one that is the best by what is known, the longest
// micro-batch that is only estimated, until nothing is. Estimates are taken to be wrong as those were that were poured.
class Search {
 public:
  Search(std::span<const DocumentIndex> documents, std::span<const int64_t> lengths, const Cost& cost,
         const Estimates& estimates)
      : documents_(documents), lengths_(lengths), cost_(cost), estimates_(estimates) {}

  void add(const Composition& composition) {
    std::vector<size_t>& numbers = compositions_.emplace_back();
    for (const Members& members : composition) {
      const auto [at, is_new] = numbers_.try_emplace(members, batches_.size());
      if (is_new) batches_.push_back(Batch{members, estimates_.seconds(members), false, {}});
      numbers.push_back(at->second);
    }
  }

  // Empty: no composition could be poured.
  StepPlan best() {
    while (true) {
      const std::vector<size_t>* best = nullptr;
      double best_seconds = kNever;
      for (const std::vector<size_t>& composition : compositions_) {
        const double seconds = seconds_of(composition);
        if (seconds >= best_seconds) continue;
        best_seconds = seconds;
        best = &composition;
      }
      if (best == nullptr) return {};
      Batch* longest = nullptr;
      for (const size_t number : *best) {
        Batch& batch = batches_[number];
        if (!batch.is_poured && (longest == nullptr || batch.seconds > longest->seconds)) longest = &batch;
      }
      if (longest != nullptr) {
        pour_batch(longest);
        continue;
      }
      StepPlan out;
      for (const size_t number : *best) out.micro_batches.push_back(std::move(batches_[number].micro_batch));
      return out;
    }
  }

 private:
  struct Batch {
    Members members;
    double seconds = 0;  // estimated or, of one that is poured, found
    bool is_poured = false;
    MicroBatch micro_batch;
  };
  // Of seconds found to those estimated, the mean; as if four had been right.
  struct Ratio {
    double sum = 4, count = 4;
  };
  static constexpr double kMostRatio =
      1.2;  // that counts: few micro-batches are that far off, and say nothing of others

  Ratio& ratio_of(const Batch& batch) { return batch.members.begin == 0 ? ratio_of_first_ : ratio_of_others_; }

  double seconds_of(const std::vector<size_t>& composition) {
    double seconds = cost_.micro_batch_seconds * static_cast<double>(composition.size());
    for (const size_t number : composition) {
      const Batch& batch = batches_[number];
      const Ratio& ratio = ratio_of(batch);
      seconds += batch.is_poured ? batch.seconds : batch.seconds * (ratio.sum / ratio.count);
    }
    return seconds;
  }

  void pour_batch(Batch* batch) {
    const auto of_end = [this](size_t number) { return documents_.end() - static_cast<std::ptrdiff_t>(number); };
    const size_t n = documents_.size();
    std::vector<DocumentIndex> documents(of_end(n - batch->members.begin), of_end(n - batch->members.end));
    documents.insert(documents.end(), of_end(batch->members.num_short), documents_.end());
    std::optional<Poured> poured =
        pour(documents, lengths_, cost_, {kOfEstimate * batch->seconds, kNever}, Effort::quick);
    batch->is_poured = true;
    if (poured) {
      Ratio& ratio = ratio_of(*batch);
      ratio.sum += std::min(poured->seconds / batch->seconds, kMostRatio);
      ratio.count += 1;
      batch->micro_batch = std::move(poured->batch);
    }
    batch->seconds = poured ? poured->seconds : kNever;
  }

  std::span<const DocumentIndex> documents_;
  std::span<const int64_t> lengths_;
  const Cost& cost_;
  const Estimates& estimates_;
  std::map<Members, size_t> numbers_;  // of `batches_`
  std::vector<Batch> batches_;
  std::vector<std::vector<size_t>> compositions_;  // numbers of their batches
  Ratio ratio_of_first_, ratio_of_others_;         // the longest documents are estimated best
};

// Places the documents of a micro-batch anew where that is faster.
void pour_again(std::span<const int64_t> lengths, const Cost& cost, MicroBatch* micro_batch) {
  std::vector<DocumentIndex> documents;
  for_each_document(*micro_batch, [&](std::span<const Share> shares) { documents.push_back(shares.front().document); });
  std::stable_sort(documents.begin(), documents.end(), [&](DocumentIndex a, DocumentIndex b) {
    return lengths[static_cast<size_t>(a)] > lengths[static_cast<size_t>(b)];
  });
  const double seconds = price(StepPlan{{*micro_batch}}, lengths, cost).seconds - cost.micro_batch_seconds;
  std::optional<Poured> poured = pour(documents, lengths, cost, {kOfFound * seconds, seconds}, Effort::thorough);
  if (poured && poured->seconds < seconds) *micro_batch = std::move(poured->batch);
}

// Empty: the estimates know no composition that can be poured.
StepPlan compose_and_pour(std::span<const DocumentIndex> documents, std::span<const int64_t> lengths, const Cost& cost,
                          int64_t least_micro_batches) {
  const auto most = static_cast<int64_t>(documents.size());
  const Estimates estimates(documents, lengths, cost);
  StepPlan plan;
  for (int64_t count = least_micro_batches; plan.micro_batches.empty() && count <= most; count += kNumbersTried) {
    Composer composer(estimates, cost, count + kNumbersTried);
    Search search(documents, lengths, cost, estimates);
    for (int64_t i = count; i < count + kNumbersTried && i <= most; ++i) {
      for (const Composition& composition : composer.compositions(i)) search.add(composition);
    }
    plan = search.best();
  }
  for (MicroBatch& micro_batch : plan.micro_batches) pour_again(lengths, cost, &micro_batch);
  return plan;
}

// Neighbours in length make up micro-batches: a step of very many is composed in parts of like documents.
StepPlan compose_in_parts(std::span<const DocumentIndex> documents, std::span<const int64_t> lengths,
                          const Cost& cost) {
  int64_t total = 0;
  for (const int64_t length : lengths) total += length;
  const int64_t num_parts = 1 + total / (cost.cluster_tokens() * kMostTogether / 2);
  StepPlan plan;
  size_t begin = 0;
  int64_t before = 0;
  for (int64_t part = 0; part < num_parts; ++part) {
    size_t end = begin;
    for (; end < documents.size() && (part + 1 == num_parts || before < total / num_parts * (part + 1)); ++end) {
      before += lengths[static_cast<size_t>(documents[end].value)];
    }
    const auto own = documents.subspan(begin, end - begin);
    begin = end;
    if (own.empty()) continue;
    std::vector<int64_t> own_lengths;
    own_lengths.reserve(own.size());
    for (const DocumentIndex document : own) own_lengths.push_back(lengths[static_cast<size_t>(document.value)]);
    StepPlan composed = compose_and_pour(own, lengths, cost, lower_bound(own_lengths, cost).least_micro_batches);
    if (composed.micro_batches.empty()) return {};
    for (MicroBatch& micro_batch : composed.micro_batches) plan.micro_batches.push_back(std::move(micro_batch));
  }
  return plan;
}

}  // namespace

PlannedStep plan_evenspan(std::span<const int64_t> lengths, const Cost& cost, const PlannerOptions& options,
                          const SolverSource& solver) {
  const StepBound bound = lower_bound(lengths, cost);
  const std::vector<DocumentIndex> documents = longest_first(lengths);
  PlannedStep out{bound.least_micro_batches > kMostTogether
                      ? compose_in_parts(documents, lengths, cost)
                      : compose_and_pour(documents, lengths, cost, bound.least_micro_batches)};
  double seconds = out.plan.micro_batches.empty() ? kNever : price(out.plan, lengths, cost).seconds;
  // Plans of whole documents in groups take no time to make. They are better where most documents are alike and
  // micro-batches cost little, or where cutting documents is dear.
  StepPlan best = homogeneous_below(lengths, cost, seconds);
  if (!best.micro_batches.empty()) seconds = price(best, lengths, cost).seconds;
  if (seconds > kNear * bound.seconds) {
    for (const auto plan : {plan_bytescale, plan_wlb, plan_skrull, plan_megatron_dynamic}) {
      if (plan == plan_wlb && documents.size() > kMostPacked) continue;
      try {
        StepPlan other = plan(lengths, cost, options, solver).plan;
        const double of_other = price(other, lengths, cost).seconds;
        if (of_other >= seconds) continue;
        seconds = of_other;
        best = std::move(other);
      } catch (const Error& error) {  // not every planner takes every number of ranks
        if (error.kind() != ErrorKind::unsupported) throw;
      }
    }
  }
  if (!best.micro_batches.empty()) {
    for (MicroBatch& micro_batch : best.micro_batches) pour_again(lengths, cost, &micro_batch);
    out.plan = std::move(best);
  }
  EVENSPAN_CHECK_EQ(out.plan.micro_batches.empty(), false);
  if (documents.size() <= kFewDocuments) {
    StepPlan divided = divide_few(documents, lengths, cost, price(out.plan, lengths, cost).seconds);
    if (!divided.micro_batches.empty()) out.plan = std::move(divided);
  }
  return out;
}

}  // namespace evenspan::batch
