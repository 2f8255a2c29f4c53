// USP (arXiv 2405.07719): Ulysses inside groups, a zigzag ring across them.
#include "plan/strategy/parts.h"
#include "plan/strategy/table.h"

namespace evenspan::plan {

Draft write_usp(const Request& request) {
  const int32_t group_size = ranks_per_group(request);
  return split_heads(request, write_zigzag(group_request(request, group_size)), group_size);
}

Traffic usp_traffic(const Request& request, const Placement& placement) {
  const AttentionShape& shape = request.shape;
  const int32_t group_size = ranks_per_group(request);
  const int32_t num_groups = request.num_ranks() / group_size;
  const HeadSplit split = head_split(request, group_size);
  int64_t elements = 0;  // times head_dim
  for (int32_t r = 0; r < request.num_ranks(); ++r) {
    const int32_t first = r - r % group_size;
    const HeadRange heads = split.heads(r % group_size);
    const int64_t kv_heads = shape.kv_heads(heads).size();
    int64_t group_tokens = 0;
    for (int32_t member = first; member < first + group_size; ++member) {
      group_tokens += placement.num_tokens(Rank(member));
    }
    if (num_groups > 1) {
      // Its kv heads of the group's other tokens, then those of every other group, once each.
      elements += (request.documents.total_tokens() - placement.num_tokens(Rank(r))) * 2 * kv_heads;
    }
    for (int64_t d = 0; d < request.documents.size(); ++d) {
      std::vector<Span> group_spans;
      for (int32_t member = first; member < first + group_size; ++member) {
        for (const Span& span : placement.spans_of(Rank(member), DocumentId(d))) group_spans.push_back(span);
      }
      const auto own = placement.spans_of(Rank(r), DocumentId(d));
      for (const Span& whole : union_of(std::move(group_spans))) {
        for (const Span& rows : split.rows(r % group_size, whole)) {
          for (const Span& remote : subtract(rows, own)) elements += remote.size() * 2 * heads.size();
        }
      }
    }
  }
  if (num_groups == 1) return ulysses_traffic(request, placement);
  return Traffic{elements * shape.head_dim * num_bytes(shape.element), 2 * num_groups};
}

}  // namespace evenspan::plan
