#include "plan/solve/rank_spans.h"

#include <algorithm>

namespace evenspan::plan {

RankSpans::RankSpans(int64_t num_documents, const std::vector<std::vector<PlacedSpan>>& ranks)
    : ranks_(ranks.size()), places_(static_cast<size_t>(num_documents)) {
  for (size_t r = 0; r < ranks.size(); ++r) {
    for (const PlacedSpan& placed : ranks[r]) add(r, placed);
  }
}

RankSpans::Place RankSpans::place(size_t rank, size_t number) const {
  // Below the k-th free slot lie as many spans as slots, but for k.
  const auto& free = ranks_[rank].free;
  size_t low = 0, high = free.size();
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    free[middle] - middle <= number ? low = middle + 1 : high = middle;
  }
  return {rank, number + low};
}

std::optional<RankSpans::Place> RankSpans::ending_at(DocumentId document, int64_t end, size_t but) const {
  for (const Place& place : places_of(document)) {
    if (place.rank != but && (*this)[place].span.end == end) return place;
  }
  return std::nullopt;
}

std::vector<PlacedSpan> RankSpans::in_order(size_t rank) const {
  std::vector<PlacedSpan> spans;
  spans.reserve(size(rank));
  for (size_t number = 0; number < size(rank); ++number) spans.push_back((*this)[place(rank, number)]);
  return spans;
}

void RankSpans::add(size_t rank, PlacedSpan placed) {
  for (;;) {
    std::optional<Place> first;  // of the spans that touch it
    for (const Place& place : places_of(placed.document)) {
      const Span& other = (*this)[place].span;
      if (place.rank != rank || (other.end != placed.span.begin && other.begin != placed.span.end)) continue;
      if (!first || place.slot < first->slot) first = place;
    }
    if (!first) break;
    const Span& other = (*this)[*first].span;
    placed.span = Span{std::min(placed.span.begin, other.begin), std::max(placed.span.end, other.end)};
    replace_by_last(*first);
  }
  push(rank, placed);
}

void RankSpans::push(size_t rank, const PlacedSpan& placed) {
  if (ranks_[rank].free.size() >= kMostFree) close_gaps(rank);
  ranks_[rank].slots.push_back(placed);
  enter({rank, ranks_[rank].slots.size() - 1});
}

void RankSpans::replace_by_last(Place place) {
  Rank& rank = ranks_[place.rank];
  const size_t last = rank.slots.size() - 1;
  leave(place);
  if (place.slot != last) {
    leave({place.rank, last});
    rank.slots[place.slot] = rank.slots[last];
    enter(place);
  }
  drop_last(&rank);
}

void RankSpans::erase(Place place) {
  Rank& rank = ranks_[place.rank];
  leave(place);
  if (place.slot + 1 == rank.slots.size()) return drop_last(&rank);
  rank.free.insert(std::lower_bound(rank.free.begin(), rank.free.end(), place.slot), place.slot);
}

void RankSpans::enter(Place place) {
  const PlacedSpan& placed = (*this)[place];
  places_[static_cast<size_t>(placed.document.value)].push_back(place);
  if (placed.span.begin == 0) return;
  auto& uppers = ranks_[place.rank].uppers;
  uppers.insert(std::lower_bound(uppers.begin(), uppers.end(), place.slot), place.slot);
}

void RankSpans::leave(Place place) {
  const PlacedSpan& placed = (*this)[place];
  std::erase(places_[static_cast<size_t>(placed.document.value)], place);
  if (placed.span.begin == 0) return;
  auto& uppers = ranks_[place.rank].uppers;
  uppers.erase(std::lower_bound(uppers.begin(), uppers.end(), place.slot));
}

void RankSpans::drop_last(Rank* rank) {
  rank->slots.pop_back();
  while (!rank->free.empty() && rank->free.back() + 1 == rank->slots.size()) {
    rank->free.pop_back();
    rank->slots.pop_back();
  }
}

void RankSpans::close_gaps(size_t r) {
  Rank& rank = ranks_[r];
  size_t kept = rank.free.front();
  for (size_t slot = kept; slot < rank.slots.size(); ++slot) {
    if (std::binary_search(rank.free.begin(), rank.free.end(), slot)) continue;
    leave({r, slot});
    rank.slots[kept] = rank.slots[slot];
    enter({r, kept});
    ++kept;
  }
  rank.slots.resize(kept);
  rank.free.clear();
}

}  // namespace evenspan::plan
