// Dynamic context parallelism of Megatron-LM (branch dev, megatron/core/datasets/data_schedule_utils.py; no paper): a
// document may have more ranks than it needs where that lowers the most work of a rank.
//
// As published: the work of a document is s^2 / cp. Longest first, the first document of a micro-batch goes to the
// fewest ranks of a power of two that hold it. For each later one every cp that holds it is tried on each group of that
// size with room, then on free ranks, and the first try with the lowest most work of a rank is taken, unless that is
// above 1.05 of what a rank full of tokens of the longest document has; then the document waits for the next
// micro-batch. The smallest groups are doubled while ranks are free.
//
// Left out: that the number of micro-batches is a multiple of what pipeline stages need, and the cut of a document into
// heads and tails, since shares have no place in a document here.
#include <algorithm>

#include "batch/groups.h"
#include "batch/table.h"

namespace evenspan::batch {
namespace {

constexpr double kMostWork = 1.05;  // of longest document x capacity

// Fills one micro-batch; returns what is left of `documents`, the longest first.
std::vector<DocumentIndex> fill(const std::vector<DocumentIndex>& documents, std::span<const int64_t> lengths,
                                const Cost& cost, std::vector<Group>* groups) {
  const auto length_of = [&](DocumentIndex document) { return lengths[static_cast<size_t>(document)]; };
  const double limit =
      kMostWork * static_cast<double>(length_of(documents.front())) * static_cast<double>(cost.capacity_tokens);
  std::vector<DocumentIndex> left;
  std::vector<double> loads;  // [group], of each of its ranks
  double most = 0;            // of these
  int32_t free = cost.num_ranks;
  for (const DocumentIndex document : documents) {
    const int64_t length = length_of(document);
    const double square = static_cast<double>(length) * static_cast<double>(length);
    const int32_t least = least_power_of_two(length, cost);
    const int32_t last = groups->empty() ? least : cost.num_ranks;
    size_t best = groups->size();  // of the groups; their number: a new one
    int32_t best_degree = 0;       // 0: none
    double best_most = 0;
    const auto offer = [&](size_t group, int32_t degree, double load) {
      const double projected = std::max(most, load + square / degree);
      if (projected > limit || (best_degree > 0 && projected >= best_most)) return;
      best = group;
      best_degree = degree;
      best_most = projected;
    };
    for (int32_t degree = least; degree <= last; degree *= 2) {
      for (size_t g = 0; g < groups->size(); ++g) {
        const bool fits = (*groups)[g].tokens + length <= degree * cost.capacity_tokens;
        if ((*groups)[g].degree == degree && fits) offer(g, degree, loads[g]);
      }
      if (degree <= free) offer(groups->size(), degree, 0);
    }
    if (best_degree == 0) {
      left.push_back(document);
      continue;
    }
    if (best == groups->size()) {
      groups->push_back(Group{best_degree, {}, 0, 0});
      loads.push_back(0);
      free -= best_degree;
    }
    (*groups)[best].add(document, lengths, cost);
    loads[best] += square / best_degree;
    most = best_most;
  }
  return left;
}

}  // namespace

PlannedStep plan_megatron_dynamic(std::span<const int64_t> lengths, const Cost& cost, const PlannerOptions&,
                                  const SolverSource&) {
  check_power_of_two_ranks("megatron_dynamic", cost);
  PlannedStep step;
  std::vector<DocumentIndex> left = longest_first(lengths);
  while (!left.empty()) {
    std::vector<Group> groups;
    left = fill(left, lengths, cost, &groups);
    widen_groups(&groups, cost.num_ranks);
    step.plan.micro_batches.push_back(place_groups(std::move(groups), lengths));
  }
  return step;
}

}  // namespace evenspan::batch
