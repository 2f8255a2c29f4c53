// A cost model with round numbers.
#pragma once

#include "evenspan/batch/cost.h"

namespace evenspan::batch {

// Nodes of 2 ranks; a token takes 1 s and a pair of a document's tokens 0.001 s; an all-to-all takes 0.1 s a token on 2
// ranks and 0.5 s on more.
inline Cost small_cost(int32_t num_ranks, int64_t capacity_tokens) {
  Cost cost;
  cost.num_ranks = num_ranks;
  cost.ranks_per_node = 2;
  cost.capacity_tokens = capacity_tokens;
  cost.square_seconds = 0.001;
  cost.token_seconds = 1;
  cost.micro_batch_seconds = 10;
  cost.exchange_seconds = {0};
  for (int32_t degree = 2; degree / 2 < num_ranks; degree *= 2) {
    cost.exchange_seconds.push_back(degree == 2 ? 0.1 : 0.5);
  }
  return cost;
}

}  // namespace evenspan::batch
