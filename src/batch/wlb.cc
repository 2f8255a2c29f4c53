// WLB-LLM (arXiv 2503.17924): packs of even work in groups of one size, every document cut over all ranks of its group.
//
// As published, by summaries of the paper: documents, longest first, go to the pack with least work, that of attention
// and that of all else; if it has no room, to the shortest pack. A pack may be longer than a window and is held back
// only by memory. All-to-alls of the group are counted as work.
//
// Changed: where the shortest pack has no room either, the published planner keeps the document for a later batch; here
// all are packed again for as many more micro-batches as such documents fill, at least one. The queues that delay
// outliers are left out for the same reason: a plan is of the documents of its batch. Packs of like work lie side by
// side in a micro-batch, since there is a barrier after each. The size of groups, which is configured there, is
// common_degree(). Left out: pipeline stages, and the choice between cuts of documents and of whole packs, which differ
// in the rates of kernels that the cost model does not have.
#include <algorithm>

#include "batch/groups.h"
#include "batch/table.h"

namespace evenspan::batch {
namespace {

struct Packed {
  std::vector<Group> packs;
  int64_t tokens_left = 0;  // of the documents that found no room
};

Packed pack(const std::vector<DocumentIndex>& documents, std::span<const int64_t> lengths, const Cost& cost,
            int32_t degree, size_t num_packs) {
  Packed out{std::vector<Group>(num_packs, Group{degree, {}, 0, 0}), 0};
  std::vector<Group>& packs = out.packs;
  for (const DocumentIndex document : documents) {
    const int64_t length = lengths[static_cast<size_t>(document)];
    const auto has_room = [&](const Group& some) { return some.tokens + length <= degree * cost.capacity_tokens; };
    auto best = std::min_element(packs.begin(), packs.end(),
                                 [&](const Group& a, const Group& b) { return a.seconds(cost) < b.seconds(cost); });
    if (!has_room(*best)) {
      best = std::min_element(packs.begin(), packs.end(),
                              [](const Group& a, const Group& b) { return a.tokens < b.tokens; });
    }
    if (has_room(*best)) {
      best->add(document, lengths, cost);
    } else {
      out.tokens_left += length;
    }
  }
  return out;
}

}  // namespace

PlannedStep plan_wlb(std::span<const int64_t> lengths, const Cost& cost, const PlannerOptions&, const SolverSource&) {
  const std::vector<DocumentIndex> documents = longest_first(lengths);
  const int32_t degree = common_degree(lengths, cost);
  const auto together = static_cast<size_t>(cost.num_ranks / degree);
  int64_t count = lower_bound(lengths, cost).least_micro_batches;
  Packed packed = pack(documents, lengths, cost, degree, together * static_cast<size_t>(count));
  while (packed.tokens_left > 0) {
    count += std::max<int64_t>(1, packed.tokens_left / cost.cluster_tokens());
    packed = pack(documents, lengths, cost, degree, together * static_cast<size_t>(count));
  }
  std::vector<Group>& packs = packed.packs;
  std::erase_if(packs, [](const Group& some) { return some.documents.empty(); });
  std::stable_sort(packs.begin(), packs.end(),
                   [&](const Group& a, const Group& b) { return a.seconds(cost) > b.seconds(cost); });
  PlannedStep step;
  for (size_t begin = 0; begin < packs.size(); begin += together) {
    const size_t end = std::min(begin + together, packs.size());
    step.plan.micro_batches.push_back(
        place_groups(std::vector<Group>(packs.begin() + static_cast<std::ptrdiff_t>(begin),
                                        packs.begin() + static_cast<std::ptrdiff_t>(end)),
                     lengths));
  }
  return step;
}

}  // namespace evenspan::batch
