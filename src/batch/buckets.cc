#include "batch/buckets.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace evenspan::batch {
namespace {

constexpr int64_t kBuckets = 16;
constexpr int64_t kNoSplit = std::numeric_limits<int64_t>::max();

// `parts` runs of neighbours of n things with the least value: join(value of the runs before, begin, end) is the value
// with one more run, kNoSplit where it is not allowed. Their ends.
template <class Join>
std::vector<size_t> best_runs(size_t n, int64_t parts, Join&& join) {
  std::vector<int64_t> least(n + 1, kNoSplit);
  least[0] = 0;
  std::vector<std::vector<size_t>> from;
  for (int64_t part = 0; part < parts; ++part) {
    std::vector<int64_t> next(n + 1, kNoSplit);
    from.emplace_back(n + 1, 0);
    for (size_t end = 1; end <= n; ++end) {
      for (size_t begin = end; begin-- > 0;) {
        if (least[begin] == kNoSplit) continue;
        const int64_t value = join(least[begin], begin, end);
        if (value < next[end]) {
          next[end] = value;
          from.back()[end] = begin;
        }
      }
    }
    least = std::move(next);
  }
  std::vector<size_t> ends;
  size_t end = n;
  for (size_t part = from.size(); part-- > 0;) {
    ends.push_back(end);
    end = from[part][end];
  }
  std::reverse(ends.begin(), ends.end());
  return ends;
}

std::vector<int64_t> lengths_of(std::span<const DocumentIndex> documents, std::span<const int64_t> lengths) {
  std::vector<int64_t> out;
  out.reserve(documents.size());
  for (const DocumentIndex document : documents) out.push_back(lengths[static_cast<size_t>(document)]);
  return out;
}

std::vector<int64_t> sums(const std::vector<int64_t>& lengths) {
  std::vector<int64_t> out(lengths.size() + 1, 0);
  std::partial_sum(lengths.begin(), lengths.end(), out.begin() + 1);
  return out;
}

}  // namespace

std::vector<Bucket> make_buckets(std::span<const DocumentIndex> documents, std::span<const int64_t> lengths,
                                 int64_t num_buckets) {
  const std::vector<DocumentIndex> ascending(documents.rbegin(), documents.rend());
  const std::vector<int64_t> own = lengths_of(ascending, lengths);
  const std::vector<int64_t> before = sums(own);
  const std::vector<size_t> ends = best_runs(own.size(), num_buckets, [&](int64_t value, size_t begin, size_t end) {
    return value + own[end - 1] * static_cast<int64_t>(end - begin) - (before[end] - before[begin]);
  });
  std::vector<Bucket> buckets;
  size_t begin = 0;
  for (const size_t end : ends) {
    buckets.push_back(Bucket{own[end - 1],
                             {ascending.begin() + static_cast<std::ptrdiff_t>(begin),
                              ascending.begin() + static_cast<std::ptrdiff_t>(end)}});
    begin = end;
  }
  return buckets;
}

std::vector<Bucket> make_buckets_for(std::span<const DocumentIndex> documents, std::span<const int64_t> lengths,
                                     const Cost& cost) {
  const auto count = static_cast<int64_t>(documents.size());
  int64_t tokens = 0;
  for (const DocumentIndex document : documents) tokens += lengths[static_cast<size_t>(document)];
  for (int64_t num_buckets = kBuckets; num_buckets < count; ++num_buckets) {
    std::vector<Bucket> buckets = make_buckets(documents, lengths, num_buckets);
    int64_t counted = 0;
    for (const Bucket& bucket : buckets) counted += bucket.length * static_cast<int64_t>(bucket.documents.size());
    if (2 * counted <= tokens + cost.cluster_tokens()) return buckets;
  }
  return make_buckets(documents, lengths, count);
}

std::vector<size_t> cut_evenly(std::span<const DocumentIndex> documents, std::span<const int64_t> lengths,
                               int64_t num_batches) {
  const std::vector<int64_t> own = lengths_of(documents, lengths);
  const std::vector<int64_t> before = sums(own);
  return best_runs(own.size(), num_batches, [&](int64_t value, size_t begin, size_t end) {
    return std::max(value, before[end] - before[begin]);
  });
}

}  // namespace evenspan::batch
