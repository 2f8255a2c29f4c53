// Half-open ranges and sets of them.
#pragma once

#include <algorithm>
#include <compare>
#include <cstdint>
#include <vector>

namespace evenspan {

// [begin, end) of something countable. Empty when begin >= end.
template <class Tag, class T>
struct Range {
  T begin = 0;
  T end = 0;

  constexpr T size() const { return end > begin ? end - begin : 0; }
  constexpr bool empty() const { return end <= begin; }
  constexpr bool contains(T x) const { return begin <= x && x < end; }
  constexpr bool contains(const Range& other) const {
    return other.empty() || (begin <= other.begin && other.end <= end);
  }
  constexpr bool overlaps(const Range& other) const { return std::max(begin, other.begin) < std::min(end, other.end); }
  constexpr Range intersect(const Range& other) const {
    return Range{std::max(begin, other.begin), std::max(std::max(begin, other.begin), std::min(end, other.end))};
  }
  friend constexpr auto operator<=>(const Range&, const Range&) = default;
};

using Span = Range<struct SpanTag, int64_t>;            // token positions inside one document
using HeadRange = Range<struct HeadRangeTag, int32_t>;  // query heads or kv heads

// Part `part` of `total` things cut into `num_parts` parts whose sizes differ by at most one.
inline Span equal_part(int64_t total, int64_t part, int64_t num_parts) {
  return Span{total * part / num_parts, total * (part + 1) / num_parts};
}

enum class Join : uint8_t { touching, overlapping };

// Sorts the ranges and joins those that overlap, or also those that only touch; empty ones are dropped.
template <class R>
std::vector<R> union_of(std::vector<R> ranges, Join join = Join::touching) {
  std::erase_if(ranges, [](const R& r) { return r.empty(); });
  std::sort(ranges.begin(), ranges.end());
  std::vector<R> joined;
  for (const R& r : ranges) {
    if (!joined.empty() && (join == Join::touching ? r.begin <= joined.back().end : r.begin < joined.back().end)) {
      joined.back().end = std::max(joined.back().end, r.end);
    } else {
      joined.push_back(r);
    }
  }
  return joined;
}

// The parts of `whole` that no range of `cover` (sorted, disjoint) contains, in ascending order.
template <class R>
std::vector<R> subtract(const R& whole, const std::vector<R>& cover) {
  std::vector<R> rest;
  auto at = whole.begin;
  for (const R& c : cover) {
    if (c.end <= at) continue;
    if (c.begin >= whole.end) break;
    if (c.begin > at) rest.push_back(R{at, c.begin});
    at = std::max(at, c.end);
  }
  if (at < whole.end) rest.push_back(R{at, whole.end});
  return rest;
}

}  // namespace evenspan
