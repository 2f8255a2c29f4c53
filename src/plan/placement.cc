#include "evenspan/plan/placement.h"

#include <algorithm>
#include <numeric>

#include "evenspan/core/error.h"

namespace evenspan::plan {
namespace {

void sort_and_join(std::vector<PlacedSpan>* spans) {
  std::erase_if(*spans, [](const PlacedSpan& s) { return s.span.empty(); });
  if (!std::is_sorted(spans->begin(), spans->end())) std::sort(spans->begin(), spans->end());
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
    : spans_(std::move(spans)), first_home_(static_cast<size_t>(documents.size()) + 1, 0) {
  for (size_t r = 0; r < spans_.size(); ++r) {
    sort_and_join(&spans_[r]);
    for (const PlacedSpan& placed : spans_[r]) {
      if (placed.document.value < 0 || placed.document.value >= documents.size()) {
        fail_invalid("[placement] rank ", r, " holds document ", placed.document, "; the batch has documents 0 to ",
                     documents.size() - 1);
      }
      ++first_home_[static_cast<size_t>(placed.document.value) + 1];
    }
  }
  std::partial_sum(first_home_.begin(), first_home_.end(), first_home_.begin());
  const size_t num_homes = first_home_.back();
  pieces_.resize(num_homes);
  home_ranks_.resize(num_homes);
  home_spans_.resize(num_homes);
  home_rows_.resize(num_homes);
  std::vector<size_t> next(first_home_.begin(), first_home_.end() - 1);  // [document]
  for (size_t r = 0; r < spans_.size(); ++r) {
    const Rank rank(static_cast<int64_t>(r));
    int64_t row = 0;
    for (const PlacedSpan& placed : spans_[r]) {
      const size_t home = next[static_cast<size_t>(placed.document.value)]++;
      pieces_[home] = Piece{rank, placed.span};
      home_ranks_[home] = rank;
      home_spans_[home] = placed.span;
      home_rows_[home] = row;
      row += placed.span.size();
    }
    num_tokens_.push_back(row);
  }
  const auto earlier = [](const Piece& a, const Piece& b) { return a.span < b.span; };
  for (int64_t d = 0; d < documents.size(); ++d) {
    const auto document = static_cast<size_t>(d);
    const auto pieces =
        std::span(pieces_).subspan(first_home_[document], first_home_[document + 1] - first_home_[document]);
    if (!std::is_sorted(pieces.begin(), pieces.end(), earlier)) std::sort(pieces.begin(), pieces.end(), earlier);
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

std::pair<size_t, size_t> Placement::home_range(Rank rank, DocumentId document) const {
  const auto begin = home_ranks_.begin();
  const auto d = static_cast<size_t>(document.value);
  const auto [first, last] = std::equal_range(begin + static_cast<int64_t>(first_home_[d]),
                                              begin + static_cast<int64_t>(first_home_[d + 1]), rank);
  return {static_cast<size_t>(first - begin), static_cast<size_t>(last - begin)};
}

std::span<const Span> Placement::spans_of(Rank rank, DocumentId document) const {
  const auto [first, last] = home_range(rank, document);
  return std::span(home_spans_).subspan(first, last - first);
}

int64_t Placement::row_of(Rank rank, DocumentId document, Span span) const {
  const auto [first, last] = home_range(rank, document);
  const auto homes = std::span(home_spans_).subspan(first, last - first);
  // The last span that begins at or before span.begin.
  const auto after =
      std::partition_point(homes.begin(), homes.end(), [&](const Span& s) { return s.begin <= span.begin; });
  if (after == homes.begin() || !std::prev(after)->contains(span)) return -1;
  const auto home = static_cast<size_t>(after - homes.begin()) - 1;
  return home_rows_[first + home] + span.begin - homes[home].begin;
}

std::span<const Placement::Piece> Placement::pieces_in(DocumentId document, Span span) const {
  const auto d = static_cast<size_t>(document.value);
  const auto pieces = std::span(pieces_).subspan(first_home_[d], first_home_[d + 1] - first_home_[d]);
  const auto first = std::partition_point(pieces.begin(), pieces.end(),
                                          [&](const Piece& piece) { return piece.span.end <= span.begin; });
  const auto last =
      std::partition_point(first, pieces.end(), [&](const Piece& piece) { return piece.span.begin < span.end; });
  return {first, last};
}

}  // namespace evenspan::plan
