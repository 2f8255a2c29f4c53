#include "evenspan/plan/placement.h"

#include "evenspan/core/error.h"

namespace evenspan::plan {
namespace {

void sort_and_join(std::vector<PlacedSpan>* spans) {
  std::erase_if(*spans, [](const PlacedSpan& s) { return s.span.empty(); });
  std::sort(spans->begin(), spans->end());
  size_t kept = 0;
  for (const PlacedSpan& next : *spans) {
    if (kept > 0 && (*spans)[kept - 1].document == next.document && (*spans)[kept - 1].span.end == next.span.begin) {
      (*spans)[kept - 1].span.end = next.span.end;
    } else {
      (*spans)[kept++] = next;
    }
  }
  spans->resize(kept);
}

}  // namespace

Placement::Placement(const Documents& documents, std::vector<std::vector<PlacedSpan>> spans)
    : spans_(std::move(spans)), homes_(static_cast<size_t>(documents.size())) {
  for (size_t r = 0; r < spans_.size(); ++r) {
    sort_and_join(&spans_[r]);
    int64_t row = 0;
    auto& first_rows = first_rows_.emplace_back();
    for (const PlacedSpan& placed : spans_[r]) {
      if (placed.document.value < 0 || placed.document.value >= documents.size()) {
        fail_invalid("[placement] rank ", r, " holds document ", placed.document, "; the batch has documents 0 to ",
                     documents.size() - 1);
      }
      first_rows.push_back(row);
      row += placed.span.size();
      homes_[static_cast<size_t>(placed.document.value)].push_back(Piece{Rank(static_cast<int64_t>(r)), placed.span});
    }
    num_tokens_.push_back(row);
  }
  for (int64_t d = 0; d < documents.size(); ++d) {
    auto& pieces = homes_[static_cast<size_t>(d)];
    std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.span < b.span; });
    const int64_t length = documents[DocumentId(d)].length;
    int64_t at = 0;
    for (const Piece& piece : pieces) {
      if (piece.span.begin != at) {
        fail_invalid("[placement] document ", d, " has spans that join up to token ", at, " and one that begins at ",
                     piece.span.begin, "; every token is on exactly one rank");
      }
      at = piece.span.end;
    }
    if (at != length) {
      fail_invalid("[placement] document ", d, " has ", length, " tokens but its spans join only to ", at,
                   "; every token is on exactly one rank");
    }
  }
}

std::vector<Span> Placement::spans_of(Rank rank, DocumentId document) const {
  const auto& spans = this->spans(rank);
  auto at = std::lower_bound(spans.begin(), spans.end(), PlacedSpan{document, Span{}});
  std::vector<Span> found;
  for (; at != spans.end() && at->document == document; ++at) found.push_back(at->span);
  return found;
}

int64_t Placement::row_of(Rank rank, DocumentId document, Span span) const {
  const auto& spans = this->spans(rank);
  // The last span of the document that begins at or before span.begin.
  auto at = std::upper_bound(spans.begin(), spans.end(), span.begin, [document](int64_t begin, const PlacedSpan& s) {
    return document != s.document ? document < s.document : begin < s.span.begin;
  });
  if (at == spans.begin()) return -1;
  --at;
  if (at->document != document || !at->span.contains(span)) return -1;
  return first_rows_[static_cast<size_t>(rank.value)][static_cast<size_t>(at - spans.begin())] + span.begin -
         at->span.begin;
}

std::vector<Placement::Piece> Placement::homes(DocumentId document, Span span) const {
  const auto& pieces = homes_[static_cast<size_t>(document.value)];
  auto at = std::partition_point(pieces.begin(), pieces.end(),
                                 [&](const Piece& piece) { return piece.span.end <= span.begin; });
  std::vector<Piece> found;
  for (; at != pieces.end() && at->span.begin < span.end; ++at) {
    found.push_back(Piece{at->rank, at->span.intersect(span)});
  }
  return found;
}

}  // namespace evenspan::plan
