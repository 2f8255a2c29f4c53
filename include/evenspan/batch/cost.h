// What a step's micro-batches cost on groups of ranks: the model of FlexSP (arXiv 2412.01523, equations 11 to 14), with
// rules for what it leaves open.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "evenspan/core/ids.h"

namespace evenspan::batch {

// Times are seconds of forward and backward of the whole model. A document of s tokens takes
//   square_seconds s^2 + token_seconds s + exchange_seconds(degree) s
// of all ranks that share it together, each in proportion to its share of the tokens; layers that see a window add the
// time of the pairs that they see. A rank's time in a micro-batch is the sum over its shares and micro_batch_seconds; a
// micro-batch ends with its slowest rank.
struct Cost {
  struct Window {
    int64_t keys = 0;         // that a query sees, >= 1
    double pair_seconds = 0;  // >= 0
  };

  int32_t num_ranks = 0;           // >= 1
  int32_t ranks_per_node = 0;      // >= 1
  int64_t capacity_tokens = 0;     // most tokens of a rank in a micro-batch, >= 1
  double square_seconds = 0;       // alpha1, >= 0: of a token of a causal document, for each token of the document
  double token_seconds = 0;        // alpha2, > 0
  double micro_batch_seconds = 0;  // beta1, >= 0: of every micro-batch on every rank
  // [i]: of the all-to-alls of a token over a group of 2^i ranks, 0 first, ascending; the last one's group holds all
  // ranks. Seconds of one rank for its tokens.
  std::vector<double> exchange_seconds;
  std::vector<Window> windows = {};  // NOLINT(readability-redundant-member-init): as in CostModel

  // Of all ranks of a document together, without exchanges. Of a token it never falls where documents are longer, which
  // lower_bound() rests on.
  double work(int64_t tokens) const {
    const auto s = static_cast<double>(tokens);
    double seconds = (square_seconds * s + token_seconds) * s;
    for (const Window& window : windows) {
      const auto seen = static_cast<double>(std::min(tokens, window.keys));
      seconds += window.pair_seconds * seen * (s - seen / 2);
    }
    return seconds;
  }
  // Of a token of a document on so many ranks: the rate of the next power of two.
  double exchange(int32_t degree) const;
  // The degree whose rate a document pays on ranks of so many nodes: ranks of two nodes exchange over the network, as
  // groups of whole nodes do.
  int32_t paid_degree(int32_t num_ranks_of_document, int32_t num_nodes_of_document) const;
  // The fewest ranks that hold so many tokens.
  int32_t least_degree(int64_t tokens) const {
    return static_cast<int32_t>((tokens + capacity_tokens - 1) / capacity_tokens);
  }
  int64_t node_of(Rank rank) const { return rank / ranks_per_node; }
  int64_t cluster_tokens() const { return capacity_tokens * num_ranks; }
};

// Throws invalid_argument for the first broken rule.
void validate(const Cost& cost);

}  // namespace evenspan::batch
