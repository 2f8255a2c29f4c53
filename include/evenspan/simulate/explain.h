// Why a plan is as it is, and what its step consists of.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "evenspan/plan/plan.h"
#include "evenspan/simulate/prediction.h"

namespace evenspan::simulate {

// How a document's attention is spread.
enum class Spread : uint8_t {
  whole,     // all of it on one rank
  cut,       // over ranks, each with all heads of its rows
  by_heads,  // over ranks with a part of the heads each (and perhaps of the rows)
};

// Why it is on more ranks than one.
enum class Reason : uint8_t {
  fits,      // it is not
  strategy,  // the strategy spreads every document that it meets
  work,      // it has more work than a rank may have
  tokens,    // it has more tokens than a rank may have
  balance,   // it would fit on a rank, and fills up ranks that have room left
};

std::string_view to_string(Spread spread);  // "whole", "cut", "by heads"
std::string_view to_string(Reason reason);  // "fits", "strategy", "work", "tokens", "balance"

// Documents that went the same way.
struct DocumentGroup {
  Spread spread = Spread::whole;
  Reason reason = Reason::fits;
  int32_t num_ranks = 1;  // that compute each of them
  int32_t num_nodes = 1;  // that these are on
  int64_t num_documents = 0;
  int64_t shortest = 0, longest = 0;       // tokens
  int64_t num_tokens = 0;                  // all together
  int64_t sent_bytes = 0;                  // of all in one layer's forward
  double least_ranks = 0, most_ranks = 0;  // work of one of them, as the mean work of so many ranks
  DocumentId first;                        // the first of them
};

// The step in parts that add up to it. Ranks are taken at the mean up to `imbalance`, which makes it the busiest rank.
struct StepParts {
  double step_seconds = 0;
  double lower_bound_seconds = 0;  // step_lower_bound()
  double kernel_seconds = 0;       // attention kernels above their best rate
  double launch_seconds = 0;       // of attention's operations and segments
  double copy_seconds = 0;         // copies, additions and clearing
  double message_seconds = 0;      // what messages take from compute engines (Link::compute_byte_seconds)
  double imbalance_seconds = 0;    // computing of the busiest rank above the mean
  double exposed_seconds = 0;      // in which the busiest rank does not compute
};

// The rank that computes longest in a step.
struct BusiestRank {
  Rank rank;
  int64_t num_tokens = 0;
  double attention_seconds = 0;  // in the step: kernels and their launches
  double copy_seconds = 0;
  double message_seconds = 0;
  double token_seconds = 0;  // token-wise layers
  // [level of the machine], of forward and backward of one layer of the plan, begun by all ranks together: in which the
  // rank waits for exchanges whose farthest peer is at that level.
  std::vector<double> wait_seconds_by_level;
};

struct Explanation {
  std::vector<DocumentGroup> groups;  // those on most ranks first
  plan::Bound bound;                  // as plan::Metrics has it
  bool keeps_limits = true;           // as plan::Metrics::keeps_limits
  int64_t key_value_bytes = 0;        // keys and values that travel in one layer's forward
  int64_t sent_bytes = 0;             // all that travels there
  StepParts step;
  BusiestRank busiest;
  Prediction prediction;
};

// REQUIRES: as predict().
Explanation explain(const plan::Plan& plan, const Scenario& scenario, const WorkPart& work = {});

}  // namespace evenspan::simulate
