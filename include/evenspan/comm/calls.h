// What a rank has called of a communicator so far, so that ranks can tell that they make the same calls in the same
// order. A group of ranks, which Communicator::split() makes, has calls of its own.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "evenspan/core/ids.h"

namespace evenspan::comm {

// What all ranks do together, in the same order: a layer's pass, a collective, a comparison.
struct Call {
  int64_t number = 0;     // counted from 1; 0: before the first
  uint64_t hash = 0;      // of this call and of all before it, below 2^63; equal on ranks that made the same calls
  std::string operation;  // "attention forward"
  std::string subject;    // what of, "plan 5f3a09c1"; may be empty
  uint64_t group = 0;     // of its communicator; 0: of one that is no group
  std::string members;    // of the group, "ranks 0-3"; empty: all ranks
};

// `call 3, "attention forward" of plan 5f3a09c1`; of a group `call 3 of ranks 0-3, "attention forward" of ...`.
std::string to_string(const Call& call);

// "rank 2", "ranks 0-3, 8". REQUIRES: ascending, not empty.
std::string to_string(const std::vector<Rank>& ranks);

// Thread-safe. A call that begins inside another one of the same communicator is a part of that one, and is not
// counted.
class Calls {
 public:
  Calls() = default;
  // Of a group: a number of its own, not 0 and below 2^63, with which its calls begin, so that those of two groups are
  // never equal; and its members, numbered as in the communicator that is no group.
  Calls(uint64_t group, std::vector<Rank> members);

  // Begins a call; false when it is a part of the one under way. Every `begin` has its `end`.
  bool begin(const std::string& operation, const std::string& subject);
  void end();

  // The one under way, else the last one; never null.
  std::shared_ptr<const Call> current() const;
  // The call of that number; null for one that was refused or is not among the last kKept.
  std::shared_ptr<const Call> find(int64_t number) const;

  // Of the current call: whether it has started to send or to receive.
  void start_transfers();
  bool has_transfers() const;

  // The current call ended with an error before it started a transfer. Of the hash it only has its number, so that
  // ranks that all refuse a call, for whatever reasons, go on alike, and others do not.
  void refuse();
  bool refused(int64_t number) const;

  // The number that a rank of this communicator has in the one that is no group.
  Rank outermost(Rank rank) const { return members_.empty() ? rank : members_[static_cast<size_t>(rank)]; }

 private:
  static constexpr size_t kKept = 64;

  const std::vector<Rank> members_;                                         // of a group
  mutable std::mutex mutex_;                                                // guards all below
  std::deque<std::shared_ptr<const Call>> last_{std::make_shared<Call>()};  // never empty, the newest last
  int depth_ = 0;                                                           // of calls under way
  bool has_transfers_ = false;
  std::set<int64_t> refused_;
};

}  // namespace evenspan::comm
