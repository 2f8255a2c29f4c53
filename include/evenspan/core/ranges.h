// Half-open ranges and sets of them.
#pragma once

#include <algorithm>
#include <compare>
#include <cstdint>
#include <span>
#include <type_traits>
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
void unite(std::vector<R>* ranges, Join join = Join::touching) {
  std::erase_if(*ranges, [](const R& r) { return r.empty(); });
  if (!std::is_sorted(ranges->begin(), ranges->end())) std::sort(ranges->begin(), ranges->end());
  size_t num_joined = 0;
  for (const R& r : *ranges) {
    R* last = num_joined > 0 ? &(*ranges)[num_joined - 1] : nullptr;
    if (last != nullptr && (join == Join::touching ? r.begin <= last->end : r.begin < last->end)) {
      last->end = std::max(last->end, r.end);
    } else {
      (*ranges)[num_joined++] = r;
    }
  }
  ranges->resize(num_joined);
}

// The same, of a copy.
template <class R>
std::vector<R> union_of(std::vector<R> ranges, Join join = Join::touching) {
  unite(&ranges, join);
  return ranges;
}

// Calls f(part) for the parts of `whole` that no range of `cover` (sorted, disjoint) contains, in ascending order.
template <class R, class F>
void for_each_uncovered(const R& whole, std::type_identity_t<std::span<const R>> cover, F&& f) {
  auto at = whole.begin;
  for (const R& c : cover) {
    if (c.end <= at) continue;
    if (c.begin >= whole.end) break;
    if (c.begin > at) f(R{at, c.begin});
    at = std::max(at, c.end);
  }
  if (at < whole.end) f(R{at, whole.end});
}

// These parts.
template <class R>
std::vector<R> subtract(const R& whole, std::type_identity_t<std::span<const R>> cover) {
  std::vector<R> rest;
  for_each_uncovered(whole, cover, [&rest](const R& part) { rest.push_back(part); });
  return rest;
}

}  // namespace evenspan
