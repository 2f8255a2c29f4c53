// The constructive half of the placement solver.
#pragma once

#include <vector>

#include "evenspan/plan/placement.h"
#include "evenspan/plan/request.h"

namespace evenspan::plan {

struct Filled {
  std::vector<std::vector<PlacedSpan>> ranks;
  int64_t most_tokens = 0;  // of a rank
};

// Fills the ranks one by one, each with the mean work of what is left: first the end of the densest document, then
// dense documents while the rank would otherwise have too many tokens, then the lightest. Documents stay whole where
// they can. A rank takes few tokens as long as none of the later ones must take more than `aim_tokens` for it; none
// takes more than `most_tokens` where that can be.
Filled fill(const Request& request, double aim_tokens, double most_tokens);

}  // namespace evenspan::plan
