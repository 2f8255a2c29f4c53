// Striped ring (arXiv 2311.09431), in stripes of the kernel's tile instead of single tokens: stripe i of every document
// is on rank i mod P.
#include "plan/strategy/parts.h"
#include "plan/strategy/table.h"

namespace evenspan::plan {

Draft write_striped(const Request& request) {
  const int64_t stripe = request.options.stripe_tokens;
  std::vector<std::vector<PlacedSpan>> spans(static_cast<size_t>(request.num_ranks()));
  for (int64_t d = 0; d < request.documents.size(); ++d) {
    const int64_t length = request.documents[DocumentId(d)].length;
    for (int64_t begin = 0; begin < length; begin += stripe) {
      const auto rank = static_cast<size_t>(begin / stripe % request.num_ranks());
      spans[rank].push_back(PlacedSpan{DocumentId(d), Span{begin, std::min(begin + stripe, length)}});
    }
  }
  return ring_draft(request, Placement(request.documents, std::move(spans)));
}

}  // namespace evenspan::plan
