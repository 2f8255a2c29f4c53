// The constructive half of the placement solver.
#pragma once

#include <vector>

#include "evenspan/plan/placement.h"
#include "evenspan/plan/request.h"

namespace evenspan::plan {

struct FillTarget {
  double aim_tokens = 0;    // of a rank; at most `most_tokens`
  double most_tokens = 0;   // of a rank
  double cutting_work = 0;  // of a rank that gets a part of a document, if that is more than the mean of what is left
  double tolerance = 0;     // work that a rank may miss or have too much, where that saves a cut
};

// Fills the ranks one by one, each with the mean work of what is left: first the end of the densest document, then
// dense documents while the rank would otherwise have too many tokens, then the lightest. Documents stay whole where
// they can. A rank takes few tokens as long as none of the later ones must take more than `aim_tokens` for it; none
// takes more than `most_tokens` where that can be.
std::vector<std::vector<PlacedSpan>> fill(const Request& request, const FillTarget& target);

}  // namespace evenspan::plan
