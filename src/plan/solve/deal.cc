#include "plan/solve/deal.h"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>

namespace evenspan::plan {
namespace {

double part(double load, double capacity) { return capacity > 0 ? load / capacity : 0; }

// The bins, in parts of the capacity.
class Bins {
 public:
  Bins(const std::vector<Load>& bins, const Load& capacity) {
    for (const Load& bin : bins) {
      attention_.push_back(part(bin.attention, capacity.attention));
      tokens_.push_back(part(bin.tokens, capacity.tokens));
    }
    // Never the best, whatever is added.
    attention_.resize((bins.size() + kLanes - 1) / kLanes * kLanes, std::numeric_limits<double>::infinity());
    tokens_.resize(attention_.size(), 0);
    ranks_.resize(attention_.size(), 0);
  }

  // Adds the load to the bin that is least full with it, of equally full ones to that with room in the other, and
  // returns that bin.
  size_t add(const Load& load) {
    // Every lane has its own least, which the compiler can turn into vector instructions.
    std::array<double, kLanes> least;
    least.fill(std::numeric_limits<double>::infinity());
    for (size_t b = 0; b < attention_.size(); b += kLanes) {
      for (size_t lane = 0; lane < kLanes; ++lane) {
        const double x = attention_[b + lane] + load.attention, y = tokens_[b + lane] + load.tokens;
        const double rank = (x > y ? x : y) + 1e-3 * (x + y);
        ranks_[b + lane] = rank;
        least[lane] = rank < least[lane] ? rank : least[lane];
      }
    }
    const double best = *std::min_element(least.begin(), least.end());
    const auto bin = static_cast<size_t>(std::find(ranks_.begin(), ranks_.end(), best) - ranks_.begin());
    attention_[bin] += load.attention;
    tokens_[bin] += load.tokens;
    return bin;
  }

 private:
  static constexpr size_t kLanes = 8;
  std::vector<double> attention_, tokens_;
  std::vector<double> ranks_;  // with the load that is added
};

class Evening {
 public:
  Evening(const std::vector<Load>& items, const Load& capacity, std::vector<int32_t>* bin_of, std::vector<Load>* bins)
      : items_(items), capacity_(capacity), bin_of_(*bin_of), bins_(*bins), content_(bins->size()) {
    for (size_t i = 0; i < items.size(); ++i) content_[static_cast<size_t>(bin_of_[i])].push_back(i);
    for (auto& content : content_) {
      std::sort(content.begin(), content.end(), [this](size_t a, size_t b) { return less(a, b); });
    }
  }

  void run() {
    const auto less_full = [this](const Load& a, const Load& b) {
      return fullness(a, capacity_) < fullness(b, capacity_);
    };
    for (size_t turn = 0; turn < 4 * bins_.size() && bins_.size() > 1; ++turn) {
      const auto most = static_cast<size_t>(std::max_element(bins_.begin(), bins_.end(), less_full) - bins_.begin());
      const auto least = static_cast<size_t>(std::min_element(bins_.begin(), bins_.end(), less_full) - bins_.begin());
      if (!exchange(most, least)) return;
    }
  }

 private:
  static constexpr size_t kNothing = ~size_t{0};

  bool less(size_t a, size_t b) const {
    return items_[a].attention != items_[b].attention ? items_[a].attention < items_[b].attention : a < b;
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
    auto& content = content_[to];
    content.insert(
        std::lower_bound(content.begin(), content.end(), item, [this](size_t a, size_t b) { return less(a, b); }),
        item);
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
  std::vector<double> sizes;
  sizes.reserve(items.size());
  for (const Load& item : items) sizes.push_back(fullness(item, capacity));
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return sizes[a] > sizes[b]; });
  std::vector<int32_t> bin_of(items.size(), 0);
  Bins filled(*bins, capacity);
  for (const size_t i : order) {
    const size_t best =
        filled.add({part(items[i].attention, capacity.attention), part(items[i].tokens, capacity.tokens)});
    bin_of[i] = static_cast<int32_t>(best);
    (*bins)[best] += items[i];
  }
  Evening(items, capacity, &bin_of, bins).run();
  return bin_of;
}

}  // namespace evenspan::plan
