#include "plan/solve/deal.h"

#include <algorithm>
#include <numeric>

namespace evenspan::plan {
namespace {

double part(double load, double capacity) { return capacity > 0 ? load / capacity : 0; }

class Evening {
 public:
  Evening(const std::vector<Load>& items, const Load& capacity, std::vector<int32_t>* bin_of, std::vector<Load>* bins)
      : items_(items), capacity_(capacity), bin_of_(*bin_of), bins_(*bins), content_(bins->size()) {
    for (size_t i = 0; i < items.size(); ++i) content_[static_cast<size_t>(bin_of_[i])].push_back(i);
    for (auto& content : content_) sort(&content);
  }

  void run() {
    const auto less_full = [this](const Load& a, const Load& b) {
      return fullness(a, capacity_) < fullness(b, capacity_);
    };
    for (size_t round = 0; round < 4 * bins_.size() && bins_.size() > 1; ++round) {
      const auto most = static_cast<size_t>(std::max_element(bins_.begin(), bins_.end(), less_full) - bins_.begin());
      const auto least = static_cast<size_t>(std::min_element(bins_.begin(), bins_.end(), less_full) - bins_.begin());
      if (!exchange(most, least)) return;
    }
  }

 private:
  static constexpr size_t kNothing = ~size_t{0};

  void sort(std::vector<size_t>* content) const {
    std::sort(content->begin(), content->end(), [this](size_t a, size_t b) {
      return items_[a].attention != items_[b].attention ? items_[a].attention < items_[b].attention : a < b;
    });
  }

  bool exchange(size_t most, size_t least) {
    const double half = (bins_[most].attention - bins_[least].attention) / 2;
    double best = fullness(bins_[most], capacity_) * (1 - 1e-6);
    size_t given = kNothing, taken = kNothing;
    const auto consider = [&](size_t give, size_t take) {
      Load change = items_[give];
      if (take != kNothing) change += -1.0 * items_[take];
      const double fuller =
          std::max(fullness(bins_[most] + -1.0 * change, capacity_), fullness(bins_[least] + change, capacity_));
      if (fuller >= best) return;
      best = fuller;
      given = give;
      taken = take;
    };
    for (const size_t give : content_[most]) {
      consider(give, kNothing);
      // Those in return that leave about half of the difference behind.
      const auto& content = content_[least];
      const auto at = std::lower_bound(content.begin(), content.end(), items_[give].attention - half,
                                       [this](size_t i, double value) { return items_[i].attention < value; });
      const auto first = at - std::min<int64_t>(2, at - content.begin());
      const auto last = at + std::min<int64_t>(2, content.end() - at);
      for (auto take = first; take != last; ++take) consider(give, *take);
    }
    if (given == kNothing) return false;
    move(given, most, least);
    if (taken != kNothing) move(taken, least, most);
    return true;
  }

  void move(size_t item, size_t from, size_t to) {
    bins_[from] += -1.0 * items_[item];
    bins_[to] += items_[item];
    bin_of_[item] = static_cast<int32_t>(to);
    std::erase(content_[from], item);
    content_[to].push_back(item);
    sort(&content_[to]);
  }

  const std::vector<Load>& items_;
  const Load& capacity_;
  std::vector<int32_t>& bin_of_;
  std::vector<Load>& bins_;
  std::vector<std::vector<size_t>> content_;  // [bin], least attention first
};

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
  // In parts of the capacity.
  std::vector<double> attention, tokens;
  for (const Load& bin : *bins) {
    attention.push_back(part(bin.attention, capacity.attention));
    tokens.push_back(part(bin.tokens, capacity.tokens));
  }
  for (const size_t i : order) {
    const double more_attention = part(items[i].attention, capacity.attention);
    const double more_tokens = part(items[i].tokens, capacity.tokens);
    size_t best = 0;
    double least = 0;
    for (size_t b = 0; b < bins->size(); ++b) {
      const double x = attention[b] + more_attention, y = tokens[b] + more_tokens;
      const double rank = std::max(x, y) + 1e-3 * (x + y);  // of equally full ones, that with room in the other
      if (b > 0 && rank >= least) continue;
      best = b;
      least = rank;
    }
    bin_of[i] = static_cast<int32_t>(best);
    attention[best] += more_attention;
    tokens[best] += more_tokens;
    (*bins)[best] += items[i];
  }
  Evening(items, capacity, &bin_of, bins).run();
  return bin_of;
}

}  // namespace evenspan::plan
