// Where the processes of a group leave notes for each other: the first failure, and what each slow rank waits for.
#pragma once

#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "comm/failure.h"
#include "evenspan/core/ids.h"

namespace evenspan::comm {

// Thread-safe. No function throws: a store that fails once is not asked again, and `trouble` says so.
class Board {
 public:
  // `store` may be null: then a rank knows only what it notices itself. The board uses a connection of its own where
  // the store can make one, so that it never waits behind somebody else's call.
  explicit Board(const c10::intrusive_ptr<c10d::Store>& store);

  // Leaves the failure unless there is one; returns the one that stands, which is the given one without a store.
  Failure post(const Failure& failure);
  std::optional<Failure> failure();

  // Leaves the refusal for all; `refusals` returns those that came since its last call, of all ranks, the oldest first.
  void post(const Refusal& refusal);
  std::vector<Refusal> refusals();

  // What `rank` waits for, seen by all until it is replaced; nothing: it does not wait.
  void publish(Rank rank, const std::optional<Waiting>& waiting);
  std::optional<Waiting> waiting(Rank rank);

  // Tells all that `rank` has seen the failure and returns when all `size` ranks have, or after 0.2 s, on rank 0 0.6 s:
  // the store may live in this process, which is likely to end next. Only the first call does anything.
  void acknowledge(Rank rank, int32_t size);

  // Why ranks may not hear from each other; empty when all is well.
  std::string trouble();

 private:
  template <class Call>
  void ask(const Call& call);
  std::optional<std::string> get(const std::string& key);

  std::mutex mutex_;                       // guards all below
  c10::intrusive_ptr<c10d::Store> store_;  // null if there is none or it failed
  std::string trouble_;
  bool acknowledged_ = false;
  int64_t num_refusals_ = 0;  // returned
};

}  // namespace evenspan::comm
