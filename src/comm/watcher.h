// A thread that looks after the waits of one rank of a process group: it hears the failures of others, tells others of
// its own, and ends waits that would not end by themselves.
#pragma once

#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "comm/board.h"
#include "comm/failure.h"
#include "evenspan/core/ids.h"

namespace evenspan::comm {

// A work of c10d and the messages that it stands for.
struct MessageWork {
  c10::intrusive_ptr<c10d::Work> work;
  std::vector<TransferEnd> messages;  // never empty
  std::chrono::milliseconds limit;    // for the work's own wait
  std::function<void()> abort;        // ends the work's wait; may throw
};

// The wait for one exchange.
struct Watched {
  std::string operation;
  std::shared_ptr<const Calls> calls;           // of this rank, that the exchange is a part of
  std::shared_ptr<const Call> call;             // of these
  std::vector<MessageWork> pendings;            // never empty while it is watched
  std::chrono::steady_clock::time_point start;  // of the wait
  std::atomic<size_t> current = 0;              // index of the pending that is waited for; all before it are done
  std::atomic<bool> on_stream = false;          // wait has returned, but the device has still to get there
};

// The error of the connection to a rank; empty while it stands, and where there is no way to know.
using Probe = std::function<std::string(Rank)>;

// The reason of a failure by a broken connection.
std::string describe_break(const std::vector<TransferEnd>& messages, const std::string& error);

// Thread-safe. A wait that lasts longer than `kInterval` is looked at in every interval, with a handful of calls of the
// store; shorter ones cost a lock.
class Watcher {
 public:
  static constexpr std::chrono::milliseconds kInterval{200};

  // `board`, the rank's own, outlives the watcher. `probe` is called by the watcher's thread.
  Watcher(Rank rank, std::chrono::milliseconds timeout, Board& board, Probe probe);
  ~Watcher();
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;

  // Returns the failure, if there is one; then the wait is not watched and must not be started.
  std::optional<Failure> begin(const std::shared_ptr<Watched>& watched);
  void end(const std::shared_ptr<Watched>& watched);

  // The failure that this rank has noticed or heard of.
  std::optional<Failure> failure();

  // Settles what the ranks call the failure: the one already known here or on the board, else the given one. From then
  // on `failure` returns it and all waits are aborted.
  Failure settle(Failure failure);
  // The same of a wait of this rank that ends with the reason, which may follow from another rank's refusal of a call:
  // then that is the failure.
  Failure settle(const Watched& watched, const std::string& reason);

 private:
  using Many = std::list<std::shared_ptr<Watched>>;

  void run();
  void look_after(const Watched& watched);
  std::optional<Failure> refusal_for(const Watched& watched);
  std::string trouble_with(const Watched& watched, const Waiting& waiting);
  std::string break_of(const Watched& watched, const Waiting& waiting);
  std::string mismatch_of(const Watched& watched, const Waiting& waiting);
  void fall(const Failure& failure);

  const Rank rank_;
  const std::chrono::milliseconds timeout_;
  const std::chrono::milliseconds interval_;  // kInterval, less for a short time-out
  Board& board_;
  const Probe probe_;

  // The thread's own.
  bool published_ = false;  // others can read what this rank waits for
  std::optional<std::pair<std::chrono::steady_clock::time_point, size_t>> suspect_;  // wait whose connection broke

  std::mutex refusals_mutex_;
  std::vector<Refusal> refusals_;  // of calls that this rank has not refused, or not come to, or has no part in

  std::mutex mutex_;  // guards all below
  std::condition_variable wake_;
  Many watched_;  // in the order of their start
  std::optional<Failure> failure_;
  bool stop_ = false;
  std::thread thread_;  // the last member: it uses the others
};

}  // namespace evenspan::comm
