// A training step as micro-batches of shares of documents, and what it costs.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "evenspan/batch/cost.h"
#include "evenspan/core/ids.h"

namespace evenspan::batch {

using DocumentIndex = Id<struct DocumentIndexTag>;  // [0, num_documents) in a step's global batch

// Tokens of a document that a rank has, in attention and elsewhere.
struct Share {
  DocumentIndex document;
  Rank rank;
  int64_t tokens = 0;  // >= 1
  friend auto operator<=>(const Share&, const Share&) = default;
};

// What all ranks do between two barriers of memory: activations of one micro-batch are gone when the next one begins.
struct MicroBatch {
  std::vector<Share> shares;  // sorted; each document whole
};

struct StepPlan {
  std::vector<MicroBatch> micro_batches;
};

struct MicroBatchCost {
  double seconds = 0;                // of the slowest rank
  std::vector<double> rank_seconds;  // [rank]
  std::vector<int64_t> rank_tokens;  // [rank]
  double exchange_seconds = 0;       // of all-to-alls, the sum over the ranks
};

struct StepCost {
  double seconds = 0;  // of all micro-batches, a barrier after each
  std::vector<MicroBatchCost> micro_batches;
  double idle_fraction = 0;      // of ranks x seconds
  double exchange_fraction = 0;  // of ranks x seconds
  int64_t peak_tokens = 0;       // most tokens of a rank in a micro-batch
};

// REQUIRES: `plan` keeps the rules of find_fault().
StepCost price(const StepPlan& plan, std::span<const int64_t> lengths, const Cost& cost);

// Why this is no plan of these documents; empty: it is one. Each document is in one micro-batch, whole, its shares on
// different ranks; no rank has more tokens in a micro-batch than its capacity.
std::string find_fault(const StepPlan& plan, std::span<const int64_t> lengths, const Cost& cost);

// Throws invalid_argument for no documents and for lengths below 1, and resource for a document that does not fit on
// all ranks together, with the memory that it needs.
void check_documents(std::span<const int64_t> lengths, const Cost& cost);

struct StepBound {
  double seconds = 0;
  double work_seconds = 0;          // of these, documents' work divided evenly
  double exchange_seconds = 0;      // of these, all-to-alls over the fewest ranks that hold each document
  int64_t least_micro_batches = 0;  // that hold all tokens
};

// No plan's price() is less. Proof: a micro-batch takes no less than the mean over its ranks, which is
// micro_batch_seconds and the P-th part of its documents' work and exchanges. A document of s tokens is on at least
// least_degree(s) ranks, so it pays at least exchange(least_degree(s)), since the rate grows with the degree and
// paid_degree is no less than the number of ranks. Each micro-batch holds at most cluster_tokens(), so there are at
// least ceil(tokens / cluster_tokens()). Each document is in one micro-batch, so the parts add up.
StepBound lower_bound(std::span<const int64_t> lengths, const Cost& cost);

}  // namespace evenspan::batch
