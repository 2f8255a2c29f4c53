// What a rank has called of a communicator so far, so that ranks can tell that they make the same calls in the same
// order.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <string>

namespace evenspan::comm {

// What all ranks do together, in the same order: a layer's pass, a collective, a comparison.
struct Call {
  int64_t number = 0;     // counted from 1; 0: before the first
  uint64_t hash = 0;      // of this call and of all before it, below 2^63; equal on ranks that made the same calls
  std::string operation;  // "attention forward"
  std::string subject;    // what of, "plan 5f3a09c1"; may be empty
};

// `call 3, "attention forward" of plan 5f3a09c1`.
std::string to_string(const Call& call);

// Thread-safe. A call that begins inside another one is a part of that one, and is not counted.
class Calls {
 public:
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

 private:
  static constexpr size_t kKept = 64;

  mutable std::mutex mutex_;                                                // guards all below
  std::deque<std::shared_ptr<const Call>> last_{std::make_shared<Call>()};  // never empty, the newest last
  int depth_ = 0;                                                           // of calls under way
  bool has_transfers_ = false;
  std::set<int64_t> refused_;
};

}  // namespace evenspan::comm
