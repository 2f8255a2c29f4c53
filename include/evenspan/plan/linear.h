// Linear attention under a plan: the plan's placement is used as it is, and what travels is the state of the recurrence
// S_t = A_t S_{t-1} + b_t k_t v_t^T. The home spans of a document are its parts, in order. Part p maps the state before
// it to the one after it, S -> M_p S + E_p, and an exclusive scan over the parts gives each the state before it.
// Backward is the reverse scan of the states' gradients with the same M, transposed. Documents on one rank move
// nothing.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "evenspan/plan/plan.h"
#include "evenspan/plan/program.h"

namespace evenspan::plan {

struct StateOptions {
  std::string transport = "all_gather";  // a name of transports()
  int32_t blocks = 0;  // pipelined: parts of the heads that follow each other, at most as many as heads; 0: the fastest
                       // by the links' latency and bandwidth, where these are unknown at most 8
  friend bool operator==(const StateOptions&, const StateOptions&) = default;
};

struct TransportInfo {
  std::string_view name;
  std::string_view summary;  // a phrase for lists
  std::string_view formula;  // of the bytes of one document in one pass (docs/algorithms.md)
  bool ordered = true;       // states are folded part by part: the bits are those of every other ordered transport
};
const std::vector<TransportInfo>& transports();

// The first document whose mask shows a query keys after it; -1 if there is none. A linear layer, whose state goes from
// each token to those after it alone, has no such plans. Windows, which hide keys, are no masks of a state either, but
// their plans place the tokens of a linear layer as well as others do.
DocumentId first_looking_ahead(const Documents& documents);
// Throws invalid_argument, as `[operation] ...`, where there is one.
void check_recurrent(const Documents& documents, const char* operation);

// Throws invalid_argument unless the shape is of a linear layer and the options name a transport and a number of blocks
// that the heads allow.
void validate(const AttentionShape& shape, const StateOptions& options);

// The program of one rank for a linear layer of this shape. Throws as `validate` and check_recurrent.
RankProgram lower_linear(const Plan& plan, const AttentionShape& shape, const StateOptions& options, Rank rank);
// All programs, as `verify` and the text form take them; the request's shape is `shape`.
LoweredPlan lower_linear_all(const Plan& plan, const AttentionShape& shape, const StateOptions& options);

// What one layer's pass moves in all, in closed form.
struct StateTraffic {
  int64_t states = 0;       // states or summaries that leave a rank, each heads x key_dim x value_dim
  int64_t transitions = 0;  // transitions that leave a rank, each heads x width(transition)
  int32_t steps = 0;        // most messages of which each needs the one before; of pipelined ones each has a block
  int64_t bytes(const AttentionShape& shape) const;
};
StateTraffic forward_traffic(const Plan& plan, const AttentionShape& shape, const StateOptions& options);
StateTraffic backward_traffic(const Plan& plan, const AttentionShape& shape, const StateOptions& options);

}  // namespace evenspan::plan
