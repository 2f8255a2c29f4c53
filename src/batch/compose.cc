#include "batch/compose.h"

#include <algorithm>
#include <limits>

namespace evenspan::batch {
namespace {

constexpr int64_t kLeastPlaces = 128;
constexpr int64_t kPlacesOfBatch = 8;
// Of the memory that even micro-batches leave, how much the fullest may have.
constexpr double kFills[] = {1, 0.97, 0.94, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.03};
// Of a micro-batch's memory, what the shortest documents may have that go with the longest.
constexpr double kShortShares[] = {0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7};
constexpr double kNone = std::numeric_limits<double>::infinity();

}  // namespace

Composer::Composer(const Estimates& estimates, const Cost& cost, int64_t most_batches)
    : estimates_(estimates), cluster_tokens_(static_cast<double>(cost.cluster_tokens())) {
  const size_t n = estimates.num_documents();
  const auto all = static_cast<double>(estimates.tokens(Members{0, n, 0}));
  const auto num_places = static_cast<double>(std::max(kLeastPlaces, kPlacesOfBatch * most_batches));
  places_.push_back(0);
  for (size_t i = 1; i <= n; ++i) {
    const double part = static_cast<double>(estimates.tokens(Members{0, i, 0})) / all * num_places;
    if (i == n || part >= static_cast<double>(places_.size())) places_.push_back(i);
  }
  seconds_.assign(places_.size() * places_.size(), -1);
}

std::vector<Composition> Composer::compositions(int64_t num_batches) {
  std::vector<Composition> out;
  const size_t n = places_.back();
  const double even = static_cast<double>(estimates_.tokens(Members{0, n, 0})) / static_cast<double>(num_batches);
  size_t last = places_.size() - 1, before = 0;
  for (const double share : kShortShares) {
    const double most_short = share * cluster_tokens_;
    while (last > 1 && static_cast<double>(estimates_.tokens(Members{places_[last - 1], n, 0})) <= most_short) --last;
    if (last == before) continue;
    before = last;
    double fullest = kNone;
    for (const double part : kFills) {
      const double most_tokens = even + (cluster_tokens_ - even) * part;
      if (fullest <= most_tokens) continue;  // the one before is this one too
      std::optional<Composition> composition = compose(num_batches, last, most_tokens);
      if (!composition) break;
      fullest = 0;
      for (const Members& members : *composition) {
        fullest = std::max(fullest, static_cast<double>(estimates_.tokens(members)));
      }
      out.push_back(std::move(*composition));
    }
  }
  return out;
}

std::optional<Composition> Composer::compose(int64_t num_batches, size_t last, double most_tokens) {
  const size_t num_short = places_.back() - places_[last];
  const auto fits = [&](const Members& members) {
    return static_cast<double>(estimates_.tokens(members)) <= most_tokens;
  };
  std::vector<double> least(last + 1, kNone);  // [place], of the micro-batches so far, which end there
  for (size_t i = 1; i <= last; ++i) {
    const Members first{0, places_[i], num_short};
    if (!fits(first)) break;
    least[i] = num_short == 0 ? estimate(0, i) : estimates_.seconds(first);
  }
  std::vector<std::vector<size_t>> from;  // [micro-batch after the first][place], where it begins
  for (int64_t b = 1; b < num_batches; ++b) {
    std::vector<double> next(last + 1, kNone);
    from.emplace_back(last + 1, 0);
    for (size_t i = 0; i < last; ++i) {
      if (least[i] == kNone) continue;
      for (size_t j = i + 1; j <= last && fits(Members{places_[i], places_[j], 0}); ++j) {
        const double seconds = least[i] + estimate(i, j);
        if (seconds >= next[j]) continue;
        next[j] = seconds;
        from.back()[j] = i;
      }
    }
    least = std::move(next);
  }
  if (least[last] == kNone) return std::nullopt;
  Composition out(static_cast<size_t>(num_batches));
  size_t end = last;
  for (size_t b = from.size(); b > 0; end = from[--b][end])
    out[b] = Members{places_[from[b - 1][end]], places_[end], 0};
  out[0] = Members{0, places_[end], num_short};
  return out;
}

double Composer::estimate(size_t from, size_t to) {
  double& known = seconds_[from * places_.size() + to];
  if (known < 0) known = estimates_.seconds(Members{places_[from], places_[to], 0});
  return known;
}

}  // namespace evenspan::batch
