// How the ranks of a group split the attention of what they share.
#pragma once

#include <vector>

#include "evenspan/plan/request.h"

namespace evenspan::plan {

// How `ranks_per_group` ranks share heads and query rows; num_head_parts x num_row_parts == ranks_per_group.
struct HeadSplit {
  int32_t num_head_parts = 1;
  int32_t num_row_parts = 1;
  int32_t num_heads = 1;

  HeadRange heads(int32_t member) const;  // of a rank in the group; never empty
  // The pieces of a span of query rows that a member computes: two of them, from both ends, so that causal work is
  // even.
  std::vector<Span> rows(int32_t member, Span queries) const;
  // How much of the attention a member computes: 1 / ranks_per_group where all have equally many heads.
  double part(int32_t member) const;
};
HeadSplit head_split(const Request& request, int32_t ranks_per_group);

}  // namespace evenspan::plan
