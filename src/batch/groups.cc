#include "batch/groups.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace evenspan::batch {

MicroBatch place_groups(std::vector<Group> groups, std::span<const int64_t> lengths) {
  std::stable_sort(groups.begin(), groups.end(), [](const Group& a, const Group& b) { return a.degree > b.degree; });
  MicroBatch out;
  int32_t first = 0;
  for (const Group& group : groups) {
    int64_t turn = 0;  // where the group's next token that is left over by even division goes
    for (const DocumentIndex document : group.documents) {
      const int64_t length = lengths[static_cast<size_t>(document)];
      const int64_t rest = length % group.degree;
      for (int32_t member = 0; member < group.degree; ++member) {
        const bool more = (member - turn + group.degree) % group.degree < rest;
        const int64_t tokens = length / group.degree + (more ? 1 : 0);
        if (tokens > 0) out.shares.push_back(Share{document, Rank(first + member), tokens});
      }
      turn = (turn + rest) % group.degree;
    }
    first += group.degree;
  }
  std::sort(out.shares.begin(), out.shares.end());
  return out;
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
  for (size_t i = 0; i < lengths.size(); ++i) out.push_back(DocumentIndex(static_cast<int64_t>(i)));
  std::stable_sort(out.begin(), out.end(), [&](DocumentIndex a, DocumentIndex b) {
    return lengths[static_cast<size_t>(a)] > lengths[static_cast<size_t>(b)];
  });
  return out;
}

}  // namespace evenspan::batch
