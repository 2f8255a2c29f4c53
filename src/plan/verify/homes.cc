#include "plan/verify/homes.h"

#include <algorithm>

namespace evenspan::plan::proofs {

Homes::Homes(const Documents& documents, const Placement& placement) : placement_(placement) {
  struct Held {
    Span span;
    int32_t rank;
  };
  std::vector<std::vector<Held>> held(static_cast<size_t>(documents.size()));
  for (int32_t rank = 0; rank < placement.num_ranks(); ++rank) {
    auto& first_rows = first_rows_.emplace_back();
    int64_t row = 0;
    const PlacedSpan* before = nullptr;
    for (const PlacedSpan& placed : placement.spans(Rank(rank))) {
      const auto& [document, span] = placed;
      if (document < 0 || document >= documents.size() || span.empty() || span.begin < 0 ||
          span.end > documents[document].length) {
        refute(Proof::result, Site{rank}, "home span ", describe(span), " of document ", document,
               " is empty or outside its document");
      }
      if (before && (document < before->document || (document == before->document && span.begin <= before->span.end))) {
        refute(Proof::result, Site{rank}, "home span ", describe(span), " of document ", document,
               " is out of order, or touches the span before it, ", describe(before->span), " of document ",
               before->document);
      }
      held[static_cast<size_t>(document.value)].push_back(Held{span, rank});
      first_rows.push_back(row);
      row += span.size();
      before = &placed;
    }
  }
  for (int64_t d = 0; d < documents.size(); ++d) {
    auto& spans = held[static_cast<size_t>(d)];
    std::sort(spans.begin(), spans.end(), [](const Held& a, const Held& b) { return a.span < b.span; });
    int64_t at = 0;
    for (const Held& next : spans) {
      if (next.span.begin != at) {
        refute(Proof::result, Site{next.rank}, "document ", d, " is home up to token ", at,
               " but the next home span is ", describe(next.span), "; every token has exactly one home");
      }
      at = next.span.end;
    }
    if (at != documents[DocumentId(d)].length) {
      refute(Proof::result, Site{}, "document ", d, " is home up to token ", at, " of ",
             documents[DocumentId(d)].length);
    }
  }
}

int64_t Homes::row_of(int32_t rank, DocumentId document, Span rows) const {
  const auto& spans = placement_.spans(Rank(rank));
  const auto after =
      std::upper_bound(spans.begin(), spans.end(), rows.begin, [document](int64_t begin, const PlacedSpan& placed) {
        return placed.document == document ? begin < placed.span.begin : document < placed.document;
      });
  if (after == spans.begin()) return -1;
  const PlacedSpan& placed = *(after - 1);
  if (placed.document != document || !placed.span.contains(rows)) return -1;
  const auto index = static_cast<size_t>(after - 1 - spans.begin());
  return first_rows_[static_cast<size_t>(rank)][index] + rows.begin - placed.span.begin;
}

}  // namespace evenspan::plan::proofs
