// Zigzag ring: every document in 2P equal chunks, rank r holds chunks r and 2P-1-r, so that causal work is even.
#include "plan/strategy/parts.h"
#include "plan/strategy/table.h"

namespace evenspan::plan {

Placement zigzag_placement(const Request& request) {
  const int32_t num_ranks = request.num_ranks();
  std::vector<std::vector<PlacedSpan>> spans(static_cast<size_t>(num_ranks));
  for (int64_t d = 0; d < request.documents.size(); ++d) {
    const int64_t length = request.documents[DocumentId(d)].length;
    for (int32_t r = 0; r < num_ranks; ++r) {
      for (const int32_t chunk : {r, 2 * num_ranks - 1 - r}) {
        spans[static_cast<size_t>(r)].push_back(
            PlacedSpan{DocumentId(d), equal_part(length, chunk, int64_t{2} * num_ranks)});
      }
    }
  }
  return Placement(request.documents, std::move(spans));
}

Draft write_zigzag(const Request& request) { return ring_draft(request, zigzag_placement(request)); }

}  // namespace evenspan::plan
