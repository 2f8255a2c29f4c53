#include "plan/strategy/rows.h"

#include <span>

namespace evenspan::plan {
namespace {

// The rows of `queries` that may see some of `keys`.
Span seeing_rows(const Document& document, Span queries, Span keys) {
  switch (document.mask.kind) {
    case MaskKind::full:
      return queries;
    case MaskKind::causal:
      return queries.intersect(Span{keys.begin, queries.end});
    case MaskKind::window:
      return queries.intersect(Span{keys.begin, keys.end - 1 + document.mask.extent});
    case MaskKind::prefix:
      return keys.begin < document.mask.extent ? queries : queries.intersect(Span{keys.begin, queries.end});
  }
  return {};
}

// Calls f(document, of_a, of_b) for each document of either, with its rows in both.
template <class F>
void for_each_document(std::span<const PlacedSpan> a, std::span<const PlacedSpan> b, F&& f) {
  const auto take = [](std::span<const PlacedSpan>* rows, DocumentId document) {
    size_t count = 0;
    while (count < rows->size() && (*rows)[count].document == document) ++count;
    const auto taken = rows->first(count);
    *rows = rows->subspan(count);
    return taken;
  };
  while (!a.empty() || !b.empty()) {
    const DocumentId document =
        b.empty() || (!a.empty() && a.front().document < b.front().document) ? a.front().document : b.front().document;
    const auto of_a = take(&a, document);
    f(document, of_a, take(&b, document));
  }
}

}  // namespace

Rows join(const Rows& a, const Rows& b) {
  Rows joined;
  joined.reserve(a.size() + b.size());
  std::vector<Span> spans;
  for_each_document(a, b, [&](DocumentId document, std::span<const PlacedSpan> of_a, std::span<const PlacedSpan> of_b) {
    spans.clear();
    for (const PlacedSpan& rows : of_a) spans.push_back(rows.span);
    for (const PlacedSpan& rows : of_b) spans.push_back(rows.span);
    unite(&spans);
    for (const Span& span : spans) joined.push_back(PlacedSpan{document, span});
  });
  return joined;
}

Rows rows_seeing(const Request& request, const Placement& placement, Rank home, Rank other) {
  Rows rows;
  for (const PlacedSpan& queries : placement.spans(home)) {
    for (const Span& keys : placement.spans_of(other, queries.document)) {
      const Span seeing = seeing_rows(request.documents[queries.document], queries.span, keys);
      if (!seeing.empty()) rows.push_back(PlacedSpan{queries.document, seeing});
    }
  }
  return join(rows, {});
}

int64_t num_rows(const Rows& rows) {
  int64_t count = 0;
  for (const PlacedSpan& placed : rows) count += placed.span.size();
  return count;
}

Rows rows_seen(const Request& request, const Placement& placement, Rank home, Rank other) {
  Rows rows;
  for (const PlacedSpan& queries : placement.spans(home)) {
    const Span needed = needed_keys(request.documents[queries.document], queries.span);
    for (const Span& keys : placement.spans_of(other, queries.document)) {
      const Span seen = keys.intersect(needed);
      if (!seen.empty()) rows.push_back(PlacedSpan{queries.document, seen});
    }
  }
  return join(rows, {});
}

}  // namespace evenspan::plan
