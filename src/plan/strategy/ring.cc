// Ring attention (arXiv 2310.01889) over equal chunks of every document: a rank holds one chunk of each, and keys and
// values go around the ring.
#include "plan/strategy/parts.h"
#include "plan/strategy/table.h"

namespace evenspan::plan {

Placement ring_placement(const Request& request) {
  const int32_t num_ranks = request.num_ranks();
  std::vector<std::vector<PlacedSpan>> spans(static_cast<size_t>(num_ranks));
  for (int64_t d = 0; d < request.documents.size(); ++d) {
    for (int32_t r = 0; r < num_ranks; ++r) {
      const Span chunk = equal_part(request.documents[DocumentId(d)].length, r, num_ranks);
      spans[static_cast<size_t>(r)].push_back(PlacedSpan{DocumentId(d), chunk});
    }
  }
  return Placement(request.documents, std::move(spans));
}

Draft write_ring(const Request& request) { return ring_draft(request, ring_placement(request)); }

}  // namespace evenspan::plan
