#include "batch/groups.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "evenspan/core/error.h"

namespace evenspan::batch {

void deal(DocumentIndex document, int64_t length, Rank first, int32_t degree, int64_t* turn,
          std::vector<Share>* shares) {
  const int64_t rest = length % degree;
  for (int32_t member = 0; member < degree; ++member) {
    const bool more = (member - *turn + degree) % degree < rest;
    const int64_t tokens = length / degree + (more ? 1 : 0);
    if (tokens > 0) shares->push_back(Share{document, Rank(first + member), tokens});
  }
  *turn = (*turn + rest) % degree;
}

MicroBatch place_groups(std::vector<Group> groups, std::span<const int64_t> lengths) {
  std::stable_sort(groups.begin(), groups.end(), [](const Group& a, const Group& b) { return a.degree > b.degree; });
  MicroBatch out;
  int32_t first = 0;
  for (const Group& group : groups) {
    int64_t turn = 0;
    for (const DocumentIndex document : group.documents) {
      deal(document, lengths[static_cast<size_t>(document)], Rank(first), group.degree, &turn, &out.shares);
    }
    first += group.degree;
  }
  std::sort(out.shares.begin(), out.shares.end());
  return out;
}

void widen_groups(std::vector<Group>* groups, int32_t num_ranks) {
  int32_t free = num_ranks;
  for (const Group& group : *groups) free -= group.degree;
  while (true) {
    Group& smallest = *std::min_element(groups->begin(), groups->end(),
                                        [](const Group& a, const Group& b) { return a.degree < b.degree; });
    if (smallest.degree > free) break;
    free -= smallest.degree;
    smallest.degree *= 2;
  }
}

int32_t least_power_of_two(int64_t tokens, const Cost& cost) {
  return static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>(cost.least_degree(tokens))));
}

int32_t common_degree(std::span<const int64_t> lengths, const Cost& cost) {
  const int32_t degree = least_power_of_two(*std::max_element(lengths.begin(), lengths.end()), cost);
  return degree <= cost.num_ranks && cost.num_ranks % degree == 0 ? degree : cost.num_ranks;
}

void check_power_of_two_ranks(std::string_view planner, const Cost& cost) {
  if (std::popcount(static_cast<uint32_t>(cost.num_ranks)) != 1) {
    fail(ErrorKind::unsupported, "[batch] there are ", cost.num_ranks, " ranks; groups of the planner ", planner,
         " are powers of two, and so are its ranks: use another planner");
  }
}

int32_t degree_within(int64_t length, double seconds, const Cost& cost) {
  const double work = cost.work(length);
  for (size_t i = 0; i < cost.exchange_seconds.size(); ++i) {  // degrees in (2^(i-1), 2^i]
    const auto most = static_cast<int32_t>(std::min(int64_t{1} << i, int64_t{cost.num_ranks}));
    const double all = work + cost.exchange_seconds[i] * static_cast<double>(length);
    if (length > most * cost.capacity_tokens || all > seconds * most) continue;
    const int32_t by_time = seconds > 0 ? static_cast<int32_t>(std::ceil(all / seconds)) : 1;
    return std::max({by_time, cost.least_degree(length), i == 0 ? 1 : (1 << (i - 1)) + 1});
  }
  return 0;
}

std::vector<DocumentIndex> longest_first(std::span<const int64_t> lengths) {
  std::vector<DocumentIndex> out;
  out.reserve(lengths.size());
  for (size_t i = 0; i < lengths.size(); ++i) out.push_back(DocumentIndex(static_cast<int64_t>(i)));
  std::stable_sort(out.begin(), out.end(), [&](DocumentIndex a, DocumentIndex b) {
    return lengths[static_cast<size_t>(a)] > lengths[static_cast<size_t>(b)];
  });
  return out;
}

}  // namespace evenspan::batch
