#include "evenspan/batch/replicas.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

namespace evenspan::batch {
namespace {

constexpr size_t kChoices = 4;    // of documents, for each pair of replicas
constexpr double kFaster = 1e-9;  // of the seconds: less is rounding

// What leaves the slowest replica, and what comes back: -1 for nothing.
struct Trade {
  double distance = 0;  // of its weight from half of what the replicas are apart
  int64_t away = 0, back = -1;
  friend bool operator<(const Trade& a, const Trade& b) {
    return std::tie(a.distance, a.away, a.back) < std::tie(b.distance, b.away, b.back);
  }
};

// Those that bring the two nearest to each other, the best first.
std::vector<Trade> best_trades(std::span<const double> weights, const std::vector<int64_t>& slow,
                               const std::vector<int64_t>& fast, double gap) {
  const auto weight = [&](int64_t document) { return document < 0 ? 0.0 : weights[static_cast<size_t>(document)]; };
  std::vector<int64_t> ascending = {-1};
  ascending.insert(ascending.end(), fast.begin(), fast.end());
  std::stable_sort(ascending.begin() + 1, ascending.end(), [&](int64_t a, int64_t b) { return weight(a) < weight(b); });
  std::vector<Trade> trades;
  for (const int64_t away : slow) {
    const double wanted = weight(away) - gap / 2;  // the weight that comes back
    auto above = std::lower_bound(ascending.begin(), ascending.end(), wanted,
                                  [&](int64_t document, double value) { return weight(document) < value; });
    if (above != ascending.begin()) --above;
    for (int i = 0; i < 2 && above != ascending.end(); ++i, ++above) {
      const double moved = weight(away) - weight(*above);
      if (moved > 0 && moved < gap) trades.push_back({std::abs(moved - gap / 2), away, *above});
    }
  }
  const size_t kept = std::min(kChoices, trades.size());
  std::partial_sort(trades.begin(), trades.begin() + static_cast<std::ptrdiff_t>(kept), trades.end());
  trades.resize(kept);
  return trades;
}

void replace_document(std::vector<int64_t>* documents, int64_t out, int64_t in) {
  if (out >= 0) documents->erase(std::lower_bound(documents->begin(), documents->end(), out));
  if (in >= 0) documents->insert(std::lower_bound(documents->begin(), documents->end(), in), in);
}

class Evening {
 public:
  Evening(std::span<const double> weights, const SecondsOf& seconds, int tries, ReplicaParts* parts)
      : weights_(weights), seconds_of_(seconds), tries_(tries), parts_(*parts) {
    for (const auto& documents : parts_) seconds_.push_back(seconds_with(documents));
  }

  // False: nothing is faster.
  bool improve() {
    const auto slowest = static_cast<size_t>(std::max_element(seconds_.begin(), seconds_.end()) - seconds_.begin());
    std::vector<size_t> others(parts_.size());
    std::iota(others.begin(), others.end(), 0);
    std::stable_sort(others.begin(), others.end(), [&](size_t a, size_t b) { return seconds_[a] < seconds_[b]; });
    return std::any_of(others.begin(), others.end(),
                       [&](size_t other) { return other != slowest && improve(slowest, other); });
  }

 private:
  double seconds_with(const std::vector<int64_t>& documents) const {
    return documents.empty() ? 0 : seconds_of_(documents);
  }

  bool improve(size_t slow, size_t fast) {
    const double gap = seconds_[slow] - seconds_[fast];
    for (const Trade& trade : best_trades(weights_, parts_[slow], parts_[fast], gap)) {
      if (tries_-- <= 0) return false;
      std::vector<int64_t> of_slow = parts_[slow], of_fast = parts_[fast];
      replace_document(&of_slow, trade.away, trade.back);
      replace_document(&of_fast, trade.back, trade.away);
      const double slow_seconds = seconds_with(of_slow), fast_seconds = seconds_with(of_fast);
      if (std::max(slow_seconds, fast_seconds) >= seconds_[slow] * (1 - kFaster)) continue;
      parts_[slow] = std::move(of_slow);
      parts_[fast] = std::move(of_fast);
      seconds_[slow] = slow_seconds;
      seconds_[fast] = fast_seconds;
      return true;
    }
    return false;
  }

  const std::span<const double> weights_;
  const SecondsOf& seconds_of_;
  int tries_;
  ReplicaParts& parts_;
  std::vector<double> seconds_;  // [replica]
};

}  // namespace

ReplicaParts divide_over_replicas(std::span<const double> weights, int32_t num_replicas) {
  std::vector<int64_t> order(weights.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return weights[static_cast<size_t>(a)] > weights[static_cast<size_t>(b)];
  });
  ReplicaParts parts(static_cast<size_t>(num_replicas));
  std::vector<double> sums(parts.size(), 0);
  for (const int64_t document : order) {
    const auto replica = static_cast<size_t>(std::min_element(sums.begin(), sums.end()) - sums.begin());
    parts[replica].push_back(document);
    sums[replica] += weights[static_cast<size_t>(document)];
  }
  for (auto& documents : parts) std::sort(documents.begin(), documents.end());
  return parts;
}

void even_out(std::span<const double> weights, const SecondsOf& seconds, int tries, ReplicaParts* parts) {
  Evening evening(weights, seconds, tries, parts);
  while (evening.improve()) {
  }
}

}  // namespace evenspan::batch
