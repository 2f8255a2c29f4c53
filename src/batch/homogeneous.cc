// Planners whose groups all have one size: one that is fixed, as DeepSpeed-Ulysses is run, or the best for each global
// batch (FlexSP's baseline "BatchAda").
#include <algorithm>
#include <cmath>
#include <limits>

#include "batch/groups.h"
#include "batch/table.h"
#include "evenspan/core/error.h"

namespace evenspan::batch {
namespace {

constexpr double kFill = 0.9;  // of a group's memory that packing aims at, in the published code
constexpr int32_t kEvenedDegree = 16;

// Best-fit decreasing into groups of kFill of their memory. A longer document has a group of its own.
std::vector<Group> pack(std::span<const int64_t> lengths, const Cost& cost, int32_t degree) {
  const double room = kFill * static_cast<double>(cost.capacity_tokens) * degree;
  std::vector<Group> groups;
  for (const DocumentIndex document : longest_first(lengths)) {
    const auto length = static_cast<double>(lengths[static_cast<size_t>(document)]);
    Group* best = nullptr;
    for (Group& group : groups) {
      const bool fits = static_cast<double>(group.tokens) + length <= room;
      if (fits && (best == nullptr || group.tokens > best->tokens)) best = &group;
    }
    if (best == nullptr) best = &groups.emplace_back(Group{degree, {}, 0, 0});
    best->add(document, lengths, cost);
  }
  return groups;
}

// What the published code makes of the last micro-batch, which has fewer groups than fit: every empty group gets one
// document, of the group that has most tokens then; groups of kEvenedDegree and more are evened out, longest first to
// the group with fewest tokens.
void fill_last(std::vector<Group>* groups, size_t num_groups, std::span<const int64_t> lengths, const Cost& cost) {
  const int32_t degree = groups->front().degree;
  if (degree >= kEvenedDegree) {
    std::vector<DocumentIndex> all;
    for (const Group& group : *groups) all.insert(all.end(), group.documents.begin(), group.documents.end());
    std::stable_sort(all.begin(), all.end(), [&](DocumentIndex a, DocumentIndex b) {
      return lengths[static_cast<size_t>(a)] > lengths[static_cast<size_t>(b)];
    });
    groups->assign(num_groups, Group{degree, {}, 0, 0});
    for (const DocumentIndex document : all) {
      std::min_element(groups->begin(), groups->end(), [](const Group& a, const Group& b) {
        return a.tokens < b.tokens;
      })->add(document, lengths, cost);
    }
  } else {
    while (groups->size() < num_groups) {
      Group* most = nullptr;
      for (Group& group : *groups) {
        if (group.documents.size() > 1 && (most == nullptr || group.tokens > most->tokens)) most = &group;
      }
      if (most == nullptr) break;
      const DocumentIndex moved = most->documents.back();
      Group rest{degree, {}, 0, 0};
      for (size_t i = 0; i + 1 < most->documents.size(); ++i) rest.add(most->documents[i], lengths, cost);
      *most = std::move(rest);
      groups->push_back(Group{degree, {}, 0, 0});
      groups->back().add(moved, lengths, cost);
    }
  }
  std::erase_if(*groups, [](const Group& group) { return group.documents.empty(); });
}

StepPlan plan_with(std::span<const int64_t> lengths, const Cost& cost, int32_t degree) {
  std::vector<Group> groups = pack(lengths, cost, degree);
  const auto together = static_cast<size_t>(cost.num_ranks / degree);
  StepPlan plan;
  for (size_t begin = 0; begin < groups.size(); begin += together) {
    const size_t end = std::min(groups.size(), begin + together);
    std::vector<Group> batch(groups.begin() + static_cast<std::ptrdiff_t>(begin),
                             groups.begin() + static_cast<std::ptrdiff_t>(end));
    if (batch.size() < together) fill_last(&batch, together, lengths, cost);
    plan.micro_batches.push_back(place_groups(std::move(batch), lengths));
  }
  return plan;
}

int32_t largest_degree(const Cost& cost) {
  int32_t degree = 1;
  while (degree * 2 <= cost.num_ranks) degree *= 2;
  return degree;
}

int32_t needed_degree(std::span<const int64_t> lengths, const Cost& cost) {
  return cost.least_degree(*std::max_element(lengths.begin(), lengths.end()));
}

// What a plan with groups of the degree takes at least: documents of more than half a group's room share none.
double least_seconds(std::span<const int64_t> lengths, const Cost& cost, int32_t degree) {
  const double room = kFill * static_cast<double>(cost.capacity_tokens) * degree;
  const int32_t together = cost.num_ranks / degree;
  double work = 0, filled = 0, num_large = 0;
  for (const int64_t length : lengths) {
    const auto tokens = static_cast<double>(length);
    work += cost.work(length) + cost.exchange(degree) * tokens;
    filled += std::min(tokens / room, 1.0);
    num_large += 2 * tokens > room ? 1 : 0;
  }
  // A hair below, so that rounding asks for no group more.
  const double num_groups = std::max(num_large, std::ceil(filled * (1 - 1e-9)));
  return work / (together * degree) + cost.micro_batch_seconds * std::ceil(num_groups / together);
}

}  // namespace

PlannedStep plan_static(std::span<const int64_t> lengths, const Cost& cost, const PlannerOptions& options,
                        const SolverSource&) {
  const int32_t degree = options.static_degree == 0 ? largest_degree(cost) : options.static_degree;
  const bool power = degree >= 1 && (degree & (degree - 1)) == 0;
  if (!power || degree > cost.num_ranks) {
    fail_invalid("[batch] the groups of the planner static have ", degree,
                 " ranks; the number is a power of two of at most ", cost.num_ranks);
  }
  if (needed_degree(lengths, cost) > degree) {
    fail(ErrorKind::resource, "[batch] a document of ", *std::max_element(lengths.begin(), lengths.end()),
         " tokens needs ", needed_degree(lengths, cost), " ranks, and groups of the planner static have ", degree,
         "; use larger groups, or another planner");
  }
  return {plan_with(lengths, cost, degree)};
}

StepPlan homogeneous_below(std::span<const int64_t> lengths, const Cost& cost, double most_seconds) {
  const int32_t needed = needed_degree(lengths, cost);
  StepPlan best;
  for (int32_t degree = 1; degree <= cost.num_ranks; degree *= 2) {
    if (degree < needed || least_seconds(lengths, cost, degree) >= most_seconds) continue;
    StepPlan plan = plan_with(lengths, cost, degree);
    const double seconds = price(plan, lengths, cost).seconds;
    if (seconds >= most_seconds) continue;
    most_seconds = seconds;
    best = std::move(plan);
  }
  return best;
}

PlannedStep plan_homogeneous(std::span<const int64_t> lengths, const Cost& cost, const PlannerOptions&,
                             const SolverSource&) {
  StepPlan best = homogeneous_below(lengths, cost, std::numeric_limits<double>::infinity());
  if (best.micro_batches.empty()) {
    fail(ErrorKind::resource, "[batch] a document of ", *std::max_element(lengths.begin(), lengths.end()),
         " tokens needs ", needed_degree(lengths, cost), " ranks, and the largest group of a power of two has ",
         largest_degree(cost), "; use another planner, or raise the memory");
  }
  return {std::move(best)};
}

}  // namespace evenspan::batch
