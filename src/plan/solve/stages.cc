#include "plan/solve/stages.h"

#include <algorithm>

namespace evenspan::plan {

int32_t most_remote_stages(const Request& request) {
  return request.topology.levels.back().bytes_per_second > 0 ? 16 : 1;
}

int32_t num_remote_stages(const Request& request, const RemoteWork& work) {
  const Level& level = request.topology.levels.back();
  const AttentionShape& shape = request.shape;
  const int32_t most = most_remote_stages(request);
  if (work.keys == 0 || most == 1) return 1;
  const double bytes = static_cast<double>(work.keys) * 2 * work.kv_heads * shape.head_dim *
                       static_cast<double>(num_bytes(shape.element));
  // Operands once in each pass, and gradients, twice as wide, once.
  const double transfer_seconds = 4 * bytes / level.bytes_per_second;
  const double attention_seconds = request.cost.pair_seconds * work.pairs / request.cost.num_layers;
  int32_t best = 1;
  double least = 0;
  for (int32_t stages = 1; stages <= most; ++stages) {
    // A causal document of 2n tokens shows its rows n keys in the mean.
    const double slowdown = request.cost.slowdown(2 * work.keys / stages);
    const double seconds = transfer_seconds / stages + attention_seconds * slowdown +
                           stages * (request.cost.stage_seconds + 2 * level.latency_seconds);
    if (stages > 1 && seconds >= least) continue;
    best = stages;
    least = seconds;
  }
  return best;
}

}  // namespace evenspan::plan
