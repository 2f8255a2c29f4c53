#include "evenspan/simulate/bound.h"

#include <algorithm>
#include <limits>

namespace evenspan::simulate {
namespace {

// The points of an axis up to `most`, and `most`; beyond the first point time is proportional, so that is always one.
std::vector<int64_t> corners(const std::vector<int64_t>& axis, int64_t most) {
  std::vector<int64_t> points{axis.front()};
  for (const int64_t point : axis) {
    if (point <= most) points.push_back(point);
  }
  points.push_back(std::max(most, axis.front()));
  return points;
}

// The least seconds per pair and head of a tile inside a document of `length`.
double best_pair_seconds(const AttentionTimes& times, Pass pass, int64_t length) {
  const int64_t whole = (length + times.tile - 1) / times.tile * times.tile;
  double best = std::numeric_limits<double>::max();
  const auto look_at = [&](plan::TileKind kind, int64_t q, int64_t k, double num_pairs) {
    const double seconds = segment_seconds(times, pass, kind, q, k, 1) - times.times(pass).segment_seconds;
    best = std::min(best, seconds / num_pairs);
  };
  for (const int64_t q : corners(times.queries, whole)) {
    for (const int64_t k : corners(times.keys, whole)) {
      look_at(plan::TileKind::full, q, k, static_cast<double>(q) * static_cast<double>(k));
    }
  }
  if (times.squares.empty()) return best;
  for (const int64_t n : corners(times.squares, whole)) {
    look_at(plan::TileKind::causal, n, n, static_cast<double>(n) * static_cast<double>(n + 1) / 2);
  }
  return best;
}

}  // namespace

double step_lower_bound(const plan::Request& request, const Scenario& scenario) {
  const auto& [machine, profile, model] = scenario;
  const AttentionTimes& times = attention_times(profile, request.shape);
  double attention = 0;  // of one head
  for (const plan::Document& document : request.documents.all()) {
    const auto pairs = static_cast<double>(plan::num_pairs(document, Span{0, document.length}));
    attention += pairs * (best_pair_seconds(times, Pass::forward, document.length) +
                          best_pair_seconds(times, Pass::backward, document.length));
  }
  const double flops =
      model.num_layers * (model.before_attention_flops() + model.after_attention_flops()) + model.output_layer_flops();
  const double per_flop = 1 / profile.forward_flops_per_second + 2 / profile.backward_flops_per_second;
  const double tokens = flops * per_flop * static_cast<double>(request.documents.total_tokens());
  return (attention * request.shape.num_heads * model.num_layers + tokens) / request.num_ranks();
}

}  // namespace evenspan::simulate
