// The spans of all ranks while a search exchanges them.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "evenspan/plan/placement.h"

namespace evenspan::plan {

// Every rank has its spans in an order, by whose numbers a search picks them at random; those of a document are found
// without looking at others. A change costs what the document is cut into and a logarithm of the rank's cuts, not its
// number of spans.
class RankSpans {
 public:
  // Where a span lies. A slot holds its span until the rank's last span is moved there, or one is pushed.
  struct Place {
    size_t rank = 0, slot = 0;
    friend bool operator==(const Place&, const Place&) = default;
  };

  // Adds each rank's spans one after another, as add() does.
  RankSpans(int64_t num_documents, const std::vector<std::vector<PlacedSpan>>& ranks);

  size_t num_ranks() const { return ranks_.size(); }
  size_t size(size_t rank) const { return ranks_[rank].slots.size() - ranks_[rank].free.size(); }
  const PlacedSpan& operator[](Place place) const { return ranks_[place.rank].slots[place.slot]; }
  // Of the rank's span with this number. REQUIRES: number < size(rank).
  Place place(size_t rank, size_t number) const;
  // The rank's slots of spans that do not begin their documents, in order.
  const std::vector<size_t>& upper_slots(size_t rank) const { return ranks_[rank].uppers; }
  // Of all ranks.
  const std::vector<Place>& places_of(DocumentId document) const {
    return places_[static_cast<size_t>(document.value)];
  }
  // The span of the document that ends there, on any rank but one.
  std::optional<Place> ending_at(DocumentId document, int64_t end, size_t but) const;
  std::vector<PlacedSpan> in_order(size_t rank) const;

  // Joins the span with its neighbours on the rank, and puts it last.
  void add(size_t rank, PlacedSpan placed);
  // Puts it last, without joining it.
  void push(size_t rank, const PlacedSpan& placed);
  // The rank's last span takes the number, and the slot, of the one that goes.
  void replace_by_last(Place place);
  // The others keep their order, and their slots.
  void erase(Place place);

 private:
  struct Rank {
    std::vector<PlacedSpan> slots;  // the last one is not free
    std::vector<size_t> free;       // slots without a span, ascending, at most kMostFree after a push
    std::vector<size_t> uppers;     // ascending
  };
  static constexpr size_t kMostFree = 64;

  void enter(Place place);
  void leave(Place place);
  static void drop_last(Rank* rank);
  void close_gaps(size_t rank);

  std::vector<Rank> ranks_;
  std::vector<std::vector<Place>> places_;  // [document], in no order
};

}  // namespace evenspan::plan
