// In how many rounds keys from elsewhere come.
#pragma once

#include <cstdint>

#include "evenspan/plan/request.h"

namespace evenspan::plan {

// Rounds in which a plan for the request may get remote keys: 1 where the outermost level's bandwidth is unknown, since
// nothing then says what more of them would bring, else 16.
int32_t most_remote_rounds(const Request& request);

// Of one rank, in one layer.
struct RemoteWork {
  int64_t keys = 0;      // tokens whose keys and values come from elsewhere
  int32_t kv_heads = 0;  // of them that come
  double pairs = 0;      // of all heads, that its attention to them has
};

// The number of rounds, in [1, most_remote_rounds()], that costs least in the request's cost model. The transfer of a
// first round has nothing to hide behind, and that of gradients after the last one of backward neither: with S rounds
// an S-th part of both is waited for. Each round costs its launches, the latency of its transfers, and what kernels
// lose on shorter key ranges.
int32_t num_remote_rounds(const Request& request, const RemoteWork& work);

}  // namespace evenspan::plan
