#include "plan/solve/placement_solver.h"

#include "plan/solve/fill.h"
#include "plan/solve/repair.h"

namespace evenspan::plan {

std::vector<std::vector<PlacedSpan>> place(const Request& request) {
  const double mean = static_cast<double>(request.documents.total_tokens()) / request.num_ranks();
  const double slack = request.options.token_slack;
  const auto most = static_cast<int64_t>(mean * (1 + slack));
  Filled best;
  // Documents are whole where they can be, so a rank may come out above what was aimed at: then the aim is lowered.
  for (const double part : {0.95, 0.8, 0.5, 0.0}) {
    Filled filled = fill(request, mean * (1 + slack * part), mean * (1 + slack));
    if (best.ranks.empty() || filled.most_tokens < best.most_tokens) best = std::move(filled);
    if (best.most_tokens <= most) return std::move(best.ranks);
  }
  repair_tokens(request, most, &best.ranks);
  return std::move(best.ranks);
}

}  // namespace evenspan::plan
