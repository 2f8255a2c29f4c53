// Strong types for numbers that are easily confused.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <ostream>

namespace evenspan {

// A 32-bit number with a meaning. Made explicitly, read implicitly: it indexes and prints like an integer, and two
// kinds of ids never convert into each other.
template <class Tag>
struct Id {
  int32_t value = 0;

  constexpr Id() = default;
  constexpr explicit Id(int64_t v) : value(static_cast<int32_t>(v)) {}
  constexpr operator int32_t() const { return value; }
  friend constexpr auto operator<=>(Id a, Id b) { return a.value <=> b.value; }
  friend constexpr bool operator==(Id a, Id b) { return a.value == b.value; }
};

using Rank = Id<struct RankTag>;              // [0, num_ranks) in a communicator
using DocumentId = Id<struct DocumentIdTag>;  // [0, num_documents) in a batch

}  // namespace evenspan
