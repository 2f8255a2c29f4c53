// Where every token lives.
#pragma once

#include <cstdint>
#include <ranges>
#include <span>
#include <utility>
#include <vector>

#include "evenspan/plan/request.h"

namespace evenspan::plan {

struct PlacedSpan {
  DocumentId document;
  Span span;
  friend auto operator<=>(const PlacedSpan&, const PlacedSpan&) = default;
};

// A rank's home rows: its spans one after another, sorted by document and position, disjoint, none empty, neighbours
// joined. Every token-wise tensor of the rank has its rows in this order.
class Placement {
 public:
  Placement() = default;
  // Sorts and joins the spans of each rank. REQUIRES: together they hold every token of `documents` exactly once;
  // throws invalid_argument otherwise.
  Placement(const Documents& documents, std::vector<std::vector<PlacedSpan>> spans);

  int32_t num_ranks() const { return static_cast<int32_t>(spans_.size()); }
  const std::vector<PlacedSpan>& spans(Rank rank) const { return spans_[static_cast<size_t>(rank.value)]; }
  int64_t num_tokens(Rank rank) const { return num_tokens_[static_cast<size_t>(rank.value)]; }

  // The home spans of `document` on `rank`, sorted; empty if there are none. Valid as long as the placement is neither
  // changed nor destroyed.
  std::span<const Span> spans_of(Rank rank, DocumentId document) const;

  // The row on `rank` of position `begin`, if [begin, end) lies in one home span; -1 otherwise.
  int64_t row_of(Rank rank, DocumentId document, Span span) const;

  // The pieces of `span` with their home ranks, in ascending position: a range of Piece, valid as spans_of() is.
  struct Piece {
    Rank rank;
    Span span;
  };
  auto homes(DocumentId document, Span span) const {
    return std::views::transform(pieces_in(document, span), [span](const Piece& piece) {
      return Piece{piece.rank, piece.span.intersect(span)};
    });
  }

  friend bool operator==(const Placement& a, const Placement& b) { return a.spans_ == b.spans_; }

 private:
  // The whole pieces that overlap with `span`.
  std::span<const Piece> pieces_in(DocumentId document, Span span) const;
  // Where the spans of `document` on `rank` lie in home_spans_: [first, last).
  std::pair<size_t, size_t> home_range(Rank rank, DocumentId document) const;

  std::vector<std::vector<PlacedSpan>> spans_;  // [rank]
  std::vector<int64_t> num_tokens_;             // [rank]
  // One after another, so that a plan of many short documents needs no memory of its own for each.
  std::vector<size_t> first_home_;  // [document], and the end of the last: where the document's begin in those below
  std::vector<Piece> pieces_;       // of a document ascending
  std::vector<Rank> home_ranks_;    // of a document ascending, one for each span
  std::vector<Span> home_spans_;    // of a document and rank ascending
  std::vector<int64_t> home_rows_;  // of home_spans_: the row of the first token
};

}  // namespace evenspan::plan
