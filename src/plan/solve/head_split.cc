#include "plan/solve/head_split.h"

namespace evenspan::plan {

HeadSplit head_split(const Request& request, int32_t ranks_per_group) {
  HeadSplit split{std::min(ranks_per_group, request.shape.num_heads), 1, request.shape.num_heads};
  while (ranks_per_group % split.num_head_parts != 0) --split.num_head_parts;
  split.num_row_parts = ranks_per_group / split.num_head_parts;
  return split;
}

HeadRange HeadSplit::heads(int32_t member) const {
  const Span part = equal_part(num_heads, member % num_head_parts, num_head_parts);
  return HeadRange{static_cast<int32_t>(part.begin), static_cast<int32_t>(part.end)};
}

std::vector<Span> HeadSplit::rows(int32_t member, Span queries) const {
  if (num_row_parts == 1) return {queries};
  const int64_t part = member / num_head_parts;
  std::vector<Span> rows;
  for (const int64_t chunk : {part, 2 * num_row_parts - 1 - part}) {
    const Span cut = equal_part(queries.size(), chunk, int64_t{2} * num_row_parts);
    rows.push_back(Span{queries.begin + cut.begin, queries.begin + cut.end});
  }
  return union_of(std::move(rows));
}

double HeadSplit::part(int32_t member) const {
  return static_cast<double>(heads(member).size()) / (static_cast<double>(num_heads) * num_row_parts);
}

}  // namespace evenspan::plan
