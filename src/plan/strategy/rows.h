// Rows of several documents that queries and keys of two ranks have to do with each other.
#pragma once

#include <vector>

#include "plan/strategy/strategy.h"

namespace evenspan::plan {

using Rows = std::vector<PlacedSpan>;  // sorted by document and position, neighbours joined

// Rows of either.
Rows join(const Rows& a, const Rows& b);
int64_t num_rows(const Rows& rows);

// Query rows that are at home on `home` and may see keys of `other`.
Rows rows_seeing(const Request& request, const Placement& placement, Rank home, Rank other);
// Key rows that are at home on `other` and that queries of `home` may see.
Rows rows_seen(const Request& request, const Placement& placement, Rank home, Rank other);

}  // namespace evenspan::plan
