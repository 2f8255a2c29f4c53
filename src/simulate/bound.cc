#include "evenspan/simulate/bound.h"

#include <algorithm>
#include <map>

#include "evenspan/simulate/layers.h"

namespace evenspan::simulate {
namespace {

// The points of an axis in [least, most], and both ends; before the first point a pair costs what it costs there.
std::vector<int64_t> corners(const std::vector<int64_t>& axis, int64_t least, int64_t most) {
  std::vector<int64_t> points{std::max(least, axis.front())};
  for (const int64_t point : axis) {
    if (point > least && point < most) points.push_back(point);
  }
  points.push_back(std::max(most, axis.front()));
  return points;
}

// What tiles of a document take at least in one pass, for one head.
class LeastTimes {
 public:
  LeastTimes(const AttentionTimes& times, Pass pass) : times_(times), interpolated_(times), pass_(pass) {
    interpolated_.tile = 1;
    const auto largest = static_cast<double>(times.queries.back());
    for (size_t i = 0; i < times.keys.size(); ++i) {
      const int64_t before = i == 0 ? 0 : times.keys[i - 1];
      const double seconds_before =
          i == 0 ? 0 : seconds(interpolated_, plan::TileKind::full, times.queries.back(), before);
      pair_prices_.push_back(
          (seconds(interpolated_, plan::TileKind::full, times.queries.back(), times.keys[i]) - seconds_before) /
          (largest * static_cast<double>(times.keys[i] - before)));
    }
    square_row_prices_.resize(pair_prices_.size());
  }

  double seconds_of(const plan::Document& document) {
    const auto pairs = static_cast<double>(plan::num_pairs(document, Span{0, document.length}));
    return std::max(pairs * rate_of(document), by_rows(document, pairs));
  }

  // The least seconds of a pair.
  double rate_of(const plan::Document& document) {
    const int64_t whole = whole_tiles(document.length);
    if (document.mask.kind != plan::MaskKind::causal) return in_box(0, whole, whole);
    return std::min(of_squares(document.length), of_rectangles(whole));
  }

 private:
  int64_t whole_tiles(int64_t n) const { return (n + times_.tile - 1) / times_.tile * times_.tile; }

  double seconds(const AttentionTimes& times, plan::TileKind kind, int64_t q, int64_t k) const {
    return segment_seconds(times, pass_, kind, q, k, 1) - times.times(pass_).segment_seconds;
  }

  // Of tiles with up to `most_q` rows and from `least_k` to `most_k` keys.
  double in_box(int64_t least_k, int64_t most_k, int64_t most_q) const {
    double best = 0;
    for (const int64_t q : corners(times_.queries, 0, most_q)) {
      for (const int64_t k : corners(times_.keys, least_k, most_k)) {
        const double per_pair =
            seconds(interpolated_, plan::TileKind::full, q, k) / (static_cast<double>(q) * static_cast<double>(k));
        best = best == 0 ? per_pair : std::min(best, per_pair);
      }
    }
    return best;
  }

  // By prices of a row and of a pair.
  double by_rows(const plan::Document& document, double pairs) {
    const int64_t whole = whole_tiles(document.length);
    const auto rows = static_cast<double>(document.length), tile = static_cast<double>(times_.tile);
    const std::vector<double>& row_prices = row_prices_of(whole);
    double best = 0;
    for (size_t i = 0; i < pair_prices_.size(); ++i) {
      const double row = row_prices[i], pair = pair_prices_[i];
      if (row < 0) continue;
      double found = row * static_cast<double>(whole) + pair * pairs;
      if (document.mask.kind == plan::MaskKind::causal) found += std::min(pair / 2, row) * (tile - 1) * (rows - 1);
      best = std::max(best, found);
    }
    return best;
  }

  // For each price of a pair, what a row costs at least beside its pairs, in tiles of up to so many rows and keys.
  const std::vector<double>& row_prices_of(int64_t whole) {
    const auto [at, is_new] = row_prices_.emplace(whole, std::vector<double>());
    if (!is_new) return at->second;
    std::vector<int64_t> all_keys = corners(times_.keys, times_.tile, whole);
    all_keys.push_back(times_.tile);  // which may lie before the first point
    for (size_t i = 0; i < pair_prices_.size(); ++i) {
      double least = square_row_price(i, whole);
      for (const int64_t q : corners(times_.queries, times_.tile, whole)) {
        for (const int64_t keys : all_keys) {
          const double in_all = seconds(interpolated_, plan::TileKind::full, q, keys);
          least = std::min(least, in_all / static_cast<double>(q) - pair_prices_[i] * static_cast<double>(keys));
        }
      }
      at->second.push_back(least);
    }
    return at->second;
  }

  // The same in causal squares of up to so many rows, with a half tile more than their pairs for each row.
  double square_row_price(size_t pair_price, int64_t whole) {
    std::vector<double>& least = square_row_prices_[pair_price];  // [tiles - 1], up to there
    while (static_cast<int64_t>(least.size()) < whole / times_.tile) {
      const int64_t n = static_cast<int64_t>(least.size() + 1) * times_.tile;
      const double own = seconds(times_, plan::TileKind::causal, n, n) / static_cast<double>(n) -
                         pair_prices_[pair_price] * static_cast<double>(n + times_.tile) / 2;
      least.push_back(least.empty() ? own : std::min(own, least.back()));
    }
    return least[static_cast<size_t>(whole / times_.tile) - 1];
  }

  double of_rectangles(int64_t length) {
    const auto [at, is_new] = rectangles_.emplace(length, 0);
    if (!is_new) return at->second;
    const int64_t most = length + 2 * times_.tile - 1;
    std::vector<int64_t> breaks = corners(times_.keys, 1, most);
    constexpr int64_t kParts = 32;
    for (int64_t i = 1; i < kParts; ++i) breaks.push_back(std::max<int64_t>(1, most * i / kParts));
    std::sort(breaks.begin(), breaks.end());
    int64_t below = 1;
    for (const int64_t above : breaks) {
      const int64_t most_q = std::max<int64_t>(1, most - below);
      const double best = in_box(below, above, most_q);
      at->second = at->second == 0 ? best : std::min(at->second, best);
      below = above;
    }
    return at->second;
  }

  double of_squares(int64_t length) {
    const auto per_pair = [this](int64_t whole, int64_t n) {
      const double pairs = static_cast<double>(n) * static_cast<double>(n + 1) / 2;
      return seconds(times_, plan::TileKind::causal, whole, whole) / pairs;
    };
    const int64_t num_tiles = whole_tiles(length) / times_.tile;
    while (static_cast<int64_t>(squares_.size()) < num_tiles) {
      const int64_t n = static_cast<int64_t>(squares_.size() + 1) * times_.tile;
      const double own = per_pair(n, n);
      squares_.push_back(squares_.empty() ? own : std::min(own, squares_.back()));
    }
    const double whole = per_pair(num_tiles * times_.tile, length);
    return num_tiles == 1 ? whole : std::min(whole, squares_[static_cast<size_t>(num_tiles) - 2]);
  }

  const AttentionTimes& times_;
  AttentionTimes interpolated_;  // without rounding to tiles
  const Pass pass_;
  std::map<int64_t, double> rectangles_;                // by length in whole tiles
  std::vector<double> squares_;                         // [tiles - 1], the least up to there
  std::vector<double> pair_prices_;                     // what a key more costs each of many rows, by part of the grid
  std::vector<std::vector<double>> square_row_prices_;  // [pair price]
  std::map<int64_t, std::vector<double>> row_prices_;   // [pair price], by length in whole tiles
};

}  // namespace

double step_lower_bound(const plan::Request& request, const Scenario& scenario) {
  const auto& [machine, profile, model] = scenario;
  const AttentionTimes& times = attention_times(profile, request.shape);
  LeastTimes forward(times, Pass::forward), backward(times, Pass::backward);
  double attention = 0;  // of one head of every layer
  const auto add = [&](int32_t num_layers, const plan::Documents& documents) {
    for (const plan::Document& document : documents.all()) {
      attention += num_layers * (forward.seconds_of(document) + backward.seconds_of(document));
    }
  };
  add(model.num_unwindowed_layers(), request.documents);
  for (const auto& [count, window] : model.windows) add(count, seen_through(request.documents, window));
  const double tokens = token_seconds(profile, model) * static_cast<double>(request.documents.total_tokens());
  return (attention * request.shape.num_heads + tokens) / request.num_ranks();
}

}  // namespace evenspan::simulate
