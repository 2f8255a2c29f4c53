// The logical axes of the ranks: who shares what with whom. Which ranks are near each other is the topology's.
#pragma once

#include <cstdint>
#include <vector>

#include "evenspan/comm/communicator.h"
#include "evenspan/core/ids.h"

namespace evenspan::comm {

// Replicas of the model, and in each the ranks of a sequence group, which share the tokens of a document. A sequence
// group is adjacent ranks, so that it lies in one node where it fits there: rank = replica * sequence ranks + place in
// the group. An immutable value.
class Mesh {
 public:
  // One rank.
  Mesh() = default;
  // Throws invalid_argument unless there is at least one replica and their number divides that of the ranks; the text
  // names the numbers that do.
  Mesh(int32_t num_ranks, int64_t num_replicas);

  int32_t num_ranks() const { return num_replicas_ * sequence_ranks_; }
  int32_t num_replicas() const { return num_replicas_; }
  int32_t sequence_ranks() const { return sequence_ranks_; }  // of a replica

  int32_t replica_of(Rank rank) const { return rank / sequence_ranks_; }
  // All ranks of the rank's replica, ascending.
  std::vector<Rank> sequence_group(Rank rank) const;

 private:
  int32_t num_replicas_ = 1, sequence_ranks_ = 1;
};

}  // namespace evenspan::comm
