// Which ranks of a group get which of its documents.
#pragma once

#include <vector>

#include "evenspan/plan/placement.h"
#include "evenspan/plan/request.h"
#include "plan/solve/deal.h"

namespace evenspan::plan {

// A document in a group.
struct GroupItem {
  std::vector<PlacedSpan> spans;
  Load load;
  bool cut = false;  // the group has a part of it
};

// Places a group's documents on its `num_ranks` ranks; see place_mixed(). Appends to `shared`, and to the ranks' homes,
// `homes[0]` to `homes[num_ranks - 1]`.
void place_in_group(const Request& request, int32_t num_ranks, std::vector<GroupItem> items,
                    std::vector<PlacedSpan>* shared, std::vector<PlacedSpan>* homes);

}  // namespace evenspan::plan
