// The cost of micro-batches of a model, on a machine with a measured profile or by operations, and the memory that they
// need.
#pragma once

#include <cstdint>
#include <string>

#include "evenspan/batch/cost.h"
#include "evenspan/simulate/prediction.h"

namespace evenspan::batch {

// Where a model's states lie: weights, their gradients and what the optimiser keeps.
enum class StateLayout : uint8_t {
  sharded_optimizer,  // weights and gradients on every rank, the optimiser's states divided over all ranks
  sharded,            // all of it divided over all ranks (ZeRO-3)
};
StateLayout parse_state_layout(const std::string& text);  // "optimizer", "all"; throws invalid_argument

// Bytes of states on a rank: of every parameter a weight in the model's type, a gradient in the accumulation type, and
// for AdamW a weight and two moments in it.
double state_bytes(const simulate::Model& model, StateLayout layout, int32_t num_ranks);

// Bytes that a token keeps from forward to backward on its rank, in all layers, nothing recomputed: of a layer the
// inputs of its two norms, the normed rows, queries, keys, values, attention's output and, of softmax, log-sum-exp, and
// three rows of the MLP; and of the output layer its input and the logits with their gradient in the accumulation type.
double token_bytes(const simulate::Model& model);

// The tokens of a rank for which memory is left beside the states, which are divided over so many ranks. Throws
// resource where that is none; the text says how much is needed.
int64_t capacity_tokens(const simulate::Model& model, int32_t num_ranks, int64_t memory_bytes, StateLayout layout);

// Costs without a capacity, which is the caller's to set.
//
// On a machine: documents at the best rate of the profile's kernels (simulate::cost_model), all-to-alls of queries,
// keys, values and outputs of softmax layers in both passes over the profile's links, and for a micro-batch the
// launches of its layers. Of linear layers the local part counts, and not the states that travel. Ranks that share
// cores are slower by as many as share one.
Cost machine_cost(const simulate::Scenario& scenario);
// Without one, as simulate::cost_model(model) counts: all-to-alls take no time, and a micro-batch
// that of the token-wise layers of 128 tokens.
Cost operation_cost(const simulate::Model& model, int32_t num_ranks);

}  // namespace evenspan::batch
