// What planners of whole groups share: a group of consecutive ranks that each of its documents is divided over evenly.
#pragma once

#include <span>
#include <string_view>
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

// The plan with groups of one size, a power of two, that takes least, if that is less than `most_seconds`; else empty.
StepPlan homogeneous_below(std::span<const int64_t> lengths, const Cost& cost, double most_seconds);

// Appends the shares of a document on the ranks [first, first + degree), whose tokens differ by at most one. The tokens
// that even division leaves over go to one rank each, from member `*turn` of the ranks on, which is moved past them: of
// all documents dealt with one turn, 0 at first, no rank has more than the mean, rounded up.
void deal(DocumentIndex document, int64_t length, Rank first, int32_t degree, int64_t* turn,
          std::vector<Share>* shares);

// The shares of the groups, the largest on the first ranks, so that groups of powers of two lie in nodes. The documents
// of a group are dealt over it. REQUIRES: the degrees add up to at most the number of ranks.
MicroBatch place_groups(std::vector<Group> groups, std::span<const int64_t> lengths);

// Doubles the smallest group, of equal ones the first, while as many ranks are in no group. REQUIRES: there is a group.
void widen_groups(std::vector<Group>* groups, int32_t num_ranks);

// The smallest power of two of ranks that hold so many tokens.
int32_t least_power_of_two(int64_t tokens, const Cost& cost);

// The size of groups that is the same for a whole batch: the smallest power of two that holds the longest document and
// divides the number of ranks, or else all ranks.
int32_t common_degree(std::span<const int64_t> lengths, const Cost& cost);

// Throws unsupported for a number of ranks that is no power of two.
void check_power_of_two_ranks(std::string_view planner, const Cost& cost);

// The fewest ranks on which a document of so many tokens takes at most `seconds`; 0: there are none.
int32_t degree_within(int64_t length, double seconds, const Cost& cost);

// All documents, the longest first, equal ones in their order.
std::vector<DocumentIndex> longest_first(std::span<const int64_t> lengths);

}  // namespace evenspan::batch
