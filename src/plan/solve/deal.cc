#include "plan/solve/deal.h"

#include <algorithm>
#include <numeric>

namespace evenspan::plan {
namespace {

double part(double load, double capacity) { return capacity > 0 ? load / capacity : 0; }

// Of bins that are equally full, one with room in the other capacity is better.
double rank_of(const Load& load, const Load& capacity) {
  return fullness(load, capacity) +
         1e-3 * (part(load.attention, capacity.attention) + part(load.tokens, capacity.tokens));
}

}  // namespace

double fullness(const Load& load, const Load& capacity) {
  return std::max(part(load.attention, capacity.attention), part(load.tokens, capacity.tokens));
}

std::vector<int32_t> deal(const std::vector<Load>& items, const Load& capacity, std::vector<Load>* bins) {
  std::vector<size_t> order(items.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return fullness(items[a], capacity) > fullness(items[b], capacity); });
  std::vector<int32_t> bin_of(items.size(), 0);
  for (const size_t i : order) {
    size_t best = 0;
    double least = 0;
    for (size_t b = 0; b < bins->size(); ++b) {
      const double rank = rank_of((*bins)[b] + items[i], capacity);
      if (b > 0 && rank >= least) continue;
      best = b;
      least = rank;
    }
    bin_of[i] = static_cast<int32_t>(best);
    (*bins)[best] += items[i];
  }
  return bin_of;
}

}  // namespace evenspan::plan
