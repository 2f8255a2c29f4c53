// Where every token lives.
#pragma once

#include <cstdint>
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

  // The home spans of `document` on `rank`, sorted; empty if there are none.
  std::vector<Span> spans_of(Rank rank, DocumentId document) const;

  // The row on `rank` of position `begin`, if [begin, end) lies in one home span; -1 otherwise.
  int64_t row_of(Rank rank, DocumentId document, Span span) const;

  // The pieces of `span` with their home ranks, in ascending position.
  struct Piece {
    Rank rank;
    Span span;
  };
  std::vector<Piece> homes(DocumentId document, Span span) const;

  friend bool operator==(const Placement& a, const Placement& b) { return a.spans_ == b.spans_; }

 private:
  std::vector<std::vector<PlacedSpan>> spans_;    // [rank]
  std::vector<std::vector<int64_t>> first_rows_;  // [rank][span], row of the span's first token
  std::vector<int64_t> num_tokens_;               // [rank]
  std::vector<std::vector<Piece>> homes_;         // [document], ascending
};

}  // namespace evenspan::plan
