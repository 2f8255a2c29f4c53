// A training step as micro-batches of shares of documents, and what it costs.
#pragma once

#include <cstddef>
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

// Calls f(shares) for each document of a micro-batch, with all its shares.
template <class F>
void for_each_document(const MicroBatch& micro_batch, F&& f) {
  const std::span<const Share> all(micro_batch.shares);
  for (size_t begin = 0, end = 0; begin < all.size(); begin = end) {
    while (end < all.size() && all[end].document == all[begin].document) ++end;
    f(all.subspan(begin, end - begin));
  }
}

struct StepPlan {
  std::vector<MicroBatch> micro_batches;
};

struct MicroBatchCost {
  double seconds = 0;                         // of the slowest rank
  std::vector<double> rank_seconds;           // [rank]
  std::vector<double> rank_exchange_seconds;  // [rank], of these, all-to-alls
  std::vector<int64_t> rank_tokens;           // [rank]
  double exchange_seconds = 0;                // of all-to-alls, the sum over the ranks
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
  double exchange_seconds = 0;      // of these, all-to-alls
  int64_t least_micro_batches = 0;  // that hold all tokens
};

// No plan's price() is less. Proof: let a plan take S seconds besides micro_batch_seconds, of which there are at least
// ceil(tokens / cluster_tokens()). A micro-batch takes no less than the mean over its P ranks, so S is at least the
// P-th part of all work and all exchanges. A micro-batch holds at most cluster_tokens(); the tokens of the others are
// at least the rest, and their work at least that of as many tokens of the shortest documents, whose tokens have least
// work: Cost::work() of a document over its tokens never falls with them. So the others take at least L, the P-th part
// of that, and a document's micro-batch at most S - L. On d ranks the largest share is at least the d-th part, and it
// takes no longer than the micro-batch: d is at least the least number of ranks on which even shares take at most S -
// L, and at least least_degree(). Fewer ranks pay no more, since the rate grows with the degree and paid_degree() is no
// less than the number of ranks. The mean with these degrees falls in S, so the least S that is no less than it is a
// bound; it is found by bisection, from below.
StepBound lower_bound(std::span<const int64_t> lengths, const Cost& cost);

}  // namespace evenspan::batch
