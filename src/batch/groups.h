// What planners of whole groups share: a group of consecutive ranks that each of its documents is divided over evenly.
#pragma once

#include <span>
#include <vector>

#include "evenspan/batch/step.h"

namespace evenspan::batch {

struct Group {
  int32_t degree = 0;
  std::vector<DocumentIndex> documents;
  int64_t tokens = 0;
  double work = 0;  // of all ranks together, without all-to-alls

  void add(DocumentIndex document, std::span<const int64_t> lengths, const Cost& cost) {
    const int64_t length = lengths[static_cast<size_t>(document)];
    documents.push_back(document);
    tokens += length;
    work += cost.work(length);
  }
  // Of each of its ranks, micro_batch_seconds left out.
  double seconds(const Cost& cost) const {
    return (work + cost.exchange(degree) * static_cast<double>(tokens)) / degree;
  }
};

// The shares of the groups, the largest on the first ranks, so that groups of powers of two lie in nodes. Documents of
// a group are dealt in spans of tokens that differ by at most one, and begin with another rank each, so that no rank
// has more than the group's mean, rounded up. REQUIRES: the degrees add up to at most the number of ranks.
MicroBatch place_groups(std::vector<Group> groups, std::span<const int64_t> lengths);

// The fewest ranks on which a document of so many tokens takes at most `seconds`; 0: there are none.
int32_t degree_within(int64_t length, double seconds, const Cost& cost);

// All documents, the longest first, equal ones in their order.
std::vector<DocumentIndex> longest_first(std::span<const int64_t> lengths);

}  // namespace evenspan::batch
