#include "plan/solve/rounds.h"

#include <algorithm>

namespace evenspan::plan {

int32_t most_remote_rounds(const Request& request) {
  return request.topology.levels.back().bytes_per_second > 0 ? 16 : 1;
}

int32_t num_remote_rounds(const Request& request, const RemoteWork& work) {
  const Level& level = request.topology.levels.back();
  const AttentionShape& shape = request.shape;
  const int32_t most = most_remote_rounds(request);
  if (work.keys == 0 || most == 1) return 1;
  const double bytes = static_cast<double>(work.keys) * 2 * work.kv_heads * shape.head_dim *
                       static_cast<double>(num_bytes(shape.element));
  // Operands once in each pass, and gradients, twice as wide, once.
  const double transfer_seconds = 4 * bytes / level.bytes_per_second;
  const double attention_seconds = request.cost.pair_seconds * work.pairs / request.cost.num_layers;
  int32_t best = 1;
  double least = 0;
  for (int32_t rounds = 1; rounds <= most; ++rounds) {
    // A causal document of 2n tokens shows its rows n keys in the mean.
    const double slowdown = request.cost.slowdown(2 * work.keys / rounds);
    const double seconds = transfer_seconds / rounds + attention_seconds * slowdown +
                           rounds * (request.cost.round_seconds + 2 * level.latency_seconds);
    if (rounds > 1 && seconds >= least) continue;
    best = rounds;
    least = seconds;
  }
  return best;
}

}  // namespace evenspan::plan
