#include "plan/solve/mixed_placement.h"

#include "plan/solve/cut_documents.h"
#include "plan/solve/group_members.h"
#include "plan/solve/group_shares.h"

namespace evenspan::plan {
namespace {

std::vector<std::vector<GroupItem>> items_of(const Request& request, const std::vector<std::vector<Fraction>>& shares) {
  std::vector<std::vector<GroupItem>> items(shares.size());
  for (const auto& [document, of_document] : parts_by_document(shares)) {
    const auto& [groups, parts] = of_document;
    const DocumentId id(static_cast<int64_t>(document));
    auto chunks = mirrored_chunks(id, request.documents[id].length, parts, request.cost.tile);
    for (size_t i = 0; i < chunks.size(); ++i) {
      if (chunks[i].empty()) continue;
      items[groups[i]].push_back(
          GroupItem{std::move(chunks[i]), share_load(request, Fraction{document, parts[i]}), parts.size() > 1});
    }
  }
  return items;
}

}  // namespace

MixedPlacement place_mixed(const Request& request, int32_t ranks_per_group) {
  const int32_t num_groups = request.num_ranks() / ranks_per_group;
  std::vector<std::vector<GroupItem>> items = items_of(request, share_among_groups(request, num_groups));
  MixedPlacement placement;
  placement.homes.resize(static_cast<size_t>(request.num_ranks()));
  placement.shared.resize(static_cast<size_t>(num_groups));
  for (size_t g = 0; g < items.size(); ++g) {
    place_in_group(request, ranks_per_group, std::move(items[g]), &placement.shared[g],
                   &placement.homes[g * static_cast<size_t>(ranks_per_group)]);
  }
  return placement;
}

}  // namespace evenspan::plan
