// TokenRing (arXiv 2412.20501): keys and values stay at home. Queries go around the ring, one hop a round, as far as
// somebody's keys still wait for them, and each rank's partial outputs go straight back to their homes, under the tiles
// of the next round. Zigzag chunks make causal work even.
#include <span>

#include "plan/strategy/parts.h"
#include "plan/strategy/table.h"

namespace evenspan::plan {
namespace {

using Rows = std::vector<PlacedSpan>;  // sorted by document

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

// Rows of either, joined.
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

// Rows that `home` holds and that may see keys of `other`.
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

// Calls f(round, here, travelling) for every hop of the queries of `home`, the last hop first: `here` sees the
// receiver's keys, `travelling` those and the keys of later receivers.
template <class F>
void for_each_hop(const Request& request, const Placement& placement, int32_t home, F&& f) {
  const int32_t num_ranks = placement.num_ranks();
  Rows travelling;
  for (int32_t round = num_ranks - 1; round > 0; --round) {
    const Rows here = rows_seeing(request, placement, Rank(home), Rank((home + round) % num_ranks));
    travelling = join(travelling, here);
    f(round, here, travelling);
  }
}

}  // namespace

Draft write_token_ring(const Request& request) {
  const int32_t num_ranks = request.num_ranks();
  Draft draft{zigzag_placement(request), {}, {}};
  for (int32_t home = 0; home < num_ranks; ++home) {
    for (int32_t round = 0; round < num_ranks; ++round) {
      const Rank rank((home + round) % num_ranks);
      for (const PlacedSpan& queries : draft.placement.spans(Rank(home))) {
        for (const Span& keys : draft.placement.spans_of(rank, queries.document)) {
          attend(request, rank, round, queries, keys, all_heads(request), &draft.tasks);
        }
      }
    }
    for_each_hop(request, draft.placement, home, [&](int32_t round, const Rows&, const Rows& travelling) {
      const Rank from((home + round - 1) % num_ranks), to((home + round) % num_ranks);
      for (const auto& [document, rows] : travelling) {
        draft.moves.push_back(Move{round, from, to, Operand::query, document, rows, all_heads(request)});
      }
    });
  }
  return draft;
}

Traffic token_ring_traffic(const Request& request, const Placement& placement) {
  const AttentionShape& shape = request.shape;
  const int64_t query_bytes = int64_t{shape.num_heads} * shape.head_dim * num_bytes(shape.element);
  const int64_t partial_bytes =
      int64_t{shape.num_heads} * (shape.head_dim + 1) * num_bytes(accumulation_type(shape.element));
  Traffic traffic{0, 2 * (placement.num_ranks() - 1)};
  for (int32_t home = 0; home < placement.num_ranks(); ++home) {
    for_each_hop(request, placement, home, [&](int32_t, const Rows& here, const Rows& travelling) {
      traffic.sent_bytes += num_rows(travelling) * query_bytes + num_rows(here) * partial_bytes;
    });
  }
  return traffic;
}

}  // namespace evenspan::plan
