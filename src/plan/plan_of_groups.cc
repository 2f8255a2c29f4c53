// Plans whose documents each lie on a group of ranks that somebody else chose.
#include <algorithm>
#include <utility>
#include <vector>

#include "evenspan/core/error.h"
#include "plan/strategy/parts.h"

namespace evenspan::plan {
namespace {

void check_groups(const Request& request, const std::vector<std::vector<Rank>>& groups) {
  if (groups.size() != static_cast<size_t>(request.documents.size())) {
    fail_invalid("[plan] there are groups of ranks for ", groups.size(), " documents, and ", request.documents.size(),
                 " documents; give one for each");
  }
  for (size_t d = 0; d < groups.size(); ++d) {
    std::vector<Rank> ranks = groups[d];
    std::sort(ranks.begin(), ranks.end());
    if (ranks.empty() || ranks.front() < 0 || ranks.back() >= request.num_ranks() ||
        std::adjacent_find(ranks.begin(), ranks.end()) != ranks.end()) {
      fail_invalid("[plan] the group of document ", d, " has ", ranks.size(),
                   " ranks; give one or more different ones in [0, ", request.num_ranks(), ")");
    }
  }
}

}  // namespace

std::shared_ptr<const Plan> make_plan_of_groups(Request request, const std::vector<std::vector<Rank>>& groups) {
  validate(request);
  check_groups(request, groups);
  std::vector<std::vector<PlacedSpan>> homes(static_cast<size_t>(request.num_ranks()));
  std::vector<Task> tasks;
  // Whole documents hide what the others move.
  const bool has_whole = std::any_of(groups.begin(), groups.end(), [](const auto& group) { return group.size() == 1; });
  const int32_t shared_round = has_whole ? 1 : 0;
  for (size_t d = 0; d < groups.size(); ++d) {
    const DocumentId id(static_cast<int64_t>(d));
    const Span whole{0, request.documents[id].length};
    const auto size = static_cast<int32_t>(groups[d].size());
    const HeadSplit split = head_split(request, size);
    const int32_t round = size > 1 ? shared_round : 0;
    for (int32_t member = 0; member < size; ++member) {
      const Rank rank = groups[d][static_cast<size_t>(member)];
      const Span own = equal_part(whole.size(), member, size);
      if (!own.empty()) homes[static_cast<size_t>(rank)].push_back(PlacedSpan{id, own});
      for (const Span& rows : split.rows(member, whole)) {
        attend(request, rank, round, PlacedSpan{id, rows}, whole, split.heads(member), &tasks);
      }
    }
  }
  Placement placement(request.documents, std::move(homes));
  return make_plan(std::move(request), Draft{std::move(placement), std::move(tasks), {}});
}

}  // namespace evenspan::plan
