// Sorting in time that grows with the number of items only, where they come as strategies write them: mostly in order.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <ranges>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "evenspan/plan/plan.h"

namespace evenspan::plan {

// Sorts items that consist of few ascending runs, or are few. Equal ones keep their order.
template <class It, class Less>
void sort_runs(It begin, It end, Less less) {
  constexpr std::ptrdiff_t kFewItems = 16;
  constexpr size_t kManyRuns = 64;
  if (end - begin <= kFewItems) {
    for (It at = begin; at != end; ++at) std::rotate(std::upper_bound(begin, at, *at, less), at, at + 1);
    return;
  }
  std::vector<It> borders{begin};  // of the runs
  for (It at = begin; at != end && borders.size() <= kManyRuns;) {
    borders.push_back(at = std::is_sorted_until(at, end, less));
  }
  if (borders.back() != end) return std::stable_sort(begin, end, less);
  while (borders.size() > 2) {
    size_t kept = 1;
    for (size_t i = 2; i < borders.size(); i += 2) {
      std::inplace_merge(borders[i - 2], borders[i - 1], borders[i], less);
      borders[kept++] = borders[i];
    }
    if (borders.size() % 2 == 0) borders[kept++] = borders.back();
    borders.resize(kept);
  }
}

template <class Item>
struct Buckets {
  std::vector<Item> items;   // bucket after bucket
  std::vector<size_t> ends;  // [bucket], in items

  std::span<const Item> operator[](size_t bucket) const {
    const size_t first = bucket == 0 ? 0 : ends[bucket - 1];
    return std::span(items).subspan(first, ends[bucket] - first);
  }
};

// The items of the parts by their bucket, in which they keep their order, as what convert(item) makes of them.
// REQUIRES: bucket_of(item) is in [0, num_buckets).
template <class Parts, class BucketOf, class Convert = std::identity>
auto in_buckets(const Parts& parts, size_t num_buckets, BucketOf bucket_of, Convert convert = {}) {
  using Item = std::ranges::range_value_t<std::ranges::range_value_t<Parts>>;
  using Converted = std::remove_cvref_t<std::invoke_result_t<Convert, const Item&>>;
  std::vector<size_t> ends(num_buckets + 1, 0);
  for (const auto& part : parts) {
    for (const Item& item : part) ++ends[bucket_of(item) + 1];
  }
  for (size_t b = 1; b < ends.size(); ++b) ends[b] += ends[b - 1];
  Buckets<Converted> buckets{std::vector<Converted>(ends.back()), {}};
  for (const auto& part : parts) {
    for (const Item& item : part) buckets.items[ends[bucket_of(item)]++] = convert(item);
  }
  ends.pop_back();
  buckets.ends = std::move(ends);
  return buckets;
}

// The same, each bucket sorted by `less`.
template <class Parts, class BucketOf, class Less, class Convert = std::identity>
auto sorted_in_buckets(const Parts& parts, size_t num_buckets, BucketOf bucket_of, Less less, Convert convert = {}) {
  auto buckets = in_buckets(parts, num_buckets, bucket_of, convert);
  auto first = buckets.items.begin();
  for (const size_t end : buckets.ends) {
    const auto last = buckets.items.begin() + static_cast<std::ptrdiff_t>(end);
    sort_runs(first, last, less);
    first = last;
  }
  return buckets;
}

// All items of the parts, sorted by their moves (`move_of(item)`): a strategy writes what a sender sends in a round in
// few runs. REQUIRES: rounds are in [0, num_rounds), ranks in [0, num_ranks).
template <class Parts, class MoveOf>
auto sorted_by_move(int32_t num_rounds, int32_t num_ranks, const Parts& parts, MoveOf move_of) {
  const auto bucket_of = [&](const auto& item) {
    const Move& move = move_of(item);
    return static_cast<size_t>(move.round) * static_cast<size_t>(num_ranks) + static_cast<size_t>(move.from.value);
  };
  return sorted_in_buckets(parts, static_cast<size_t>(num_rounds) * static_cast<size_t>(num_ranks), bucket_of,
                           [&](const auto& a, const auto& b) { return move_of(a) < move_of(b); })
      .items;
}

}  // namespace evenspan::plan
