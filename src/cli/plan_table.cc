#include "cli/plan_table.h"

#include <numeric>
#include <vector>

#include "cli/table.h"
#include "evenspan/core/error.h"
#include "evenspan/core/grouped.h"

namespace evenspan::cli {
namespace {

// Why keys and values have to travel at all.
std::string bound_lines(const plan::Metrics& metrics) {
  const plan::Bound& bound = metrics.bound;
  const std::string limits = join_text("work within ", fixed(bound.limits.work_max_over_mean, 2), " and tokens within ",
                                       fixed(bound.limits.tokens_max_over_mean, 2), " of the mean");
  if (bound.binding == plan::Binding::nothing) {
    return join_text("With ", limits, " no single document is too much for a rank.");
  }
  return join_text("With queries at home, ", limits, ", at least ", grouped(bound.key_value_bytes),
                   "\nbytes of keys and values travel, since ",
                   bound.binding == plan::Binding::work
                       ? "single documents have more work than a rank."
                       : "the ranks that hold long documents must have their share of tokens.",
                   metrics.keeps_limits() ? "" : "\nThis plan is less even than that, and may send less.");
}

}  // namespace

std::string plan_table(const plan::Plan& plan, const plan::Metrics& metrics, const plan::Mask& mask,
                       double planning_seconds) {
  const plan::Request& request = plan.request;
  const int64_t num_tokens = request.documents.total_tokens();
  const auto num_ranks = static_cast<double>(request.num_ranks());
  const double work = std::accumulate(metrics.work_seconds.begin(), metrics.work_seconds.end(), 0.0);

  std::vector<std::vector<std::string>> rows = {{"rank", "tokens", "/ mean", "work s", "/ mean", "sent bytes"}};
  for (size_t r = 0; r < metrics.tokens.size(); ++r) {
    rows.push_back({std::to_string(r), grouped(metrics.tokens[r]),
                    fixed(static_cast<double>(metrics.tokens[r]) * num_ranks / static_cast<double>(num_tokens), 3),
                    fixed(metrics.work_seconds[r], 3), fixed(metrics.work_seconds[r] * num_ranks / work, 3),
                    grouped(metrics.sent_bytes[r])});
  }
  rows.push_back({"all", grouped(num_tokens), fixed(metrics.tokens_max_over_mean, 3), fixed(work, 3),
                  fixed(metrics.work_max_over_mean, 3), grouped(metrics.sent_bytes_total)});

  std::string beside_ring = "on one rank a ring sends nothing";
  if (metrics.ring_bytes_total > 0) {
    const double percent =
        100 * static_cast<double>(metrics.sent_bytes_total) / static_cast<double>(metrics.ring_bytes_total);
    beside_ring = join_text(fixed(percent, 2), " % of the ", grouped(metrics.ring_bytes_total), " bytes of a ring");
  }
  const plan::AttentionShape& shape = request.shape;
  return join_text(request.options.strategy, ": ", counted(request.documents.size(), "document"), ", ",
                   counted(num_tokens, "token"), " on ", counted(request.num_ranks(), "rank"), " (",
                   request.topology.ranks_per_node(), " a node), ", shape.num_heads, " heads, ", shape.num_kv_heads,
                   " kv heads of ", shape.head_dim, ", ", to_string(shape.element), ", ", to_string(mask), "\n\n",
                   aligned(rows), "\nThe last line has max / mean. One layer's forward sends ", beside_ring, ".\n",
                   "work s: modelled seconds of all layers, forward and backward. sent bytes: keys and values, and "
                   "queries and\noutputs too where they travel, as where ranks split heads.\n",
                   bound_lines(metrics), "\nPlanned in ", fixed(1e3 * planning_seconds, 2), " ms.\n");
}

}  // namespace evenspan::cli
