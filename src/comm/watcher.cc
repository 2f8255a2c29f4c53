#include "comm/watcher.h"

#include <algorithm>
#include <exception>

#include "evenspan/core/error.h"

namespace evenspan::comm {
namespace {

using Clock = std::chrono::steady_clock;

// Of a group with very many messages the first few are compared with what their peers wait for.
constexpr size_t kMostCompared = 8;

Waiting waiting_of(const Watched& watched) {
  return {watched.operation, watched.pendings[watched.current].messages, *watched.call};
}

// True when the device has got there, be it with an error.
bool is_over(const Watched& watched) {
  return watched.on_stream && std::all_of(watched.pendings.begin(), watched.pendings.end(),
                                          [](const MessageWork& pending) { return pending.work->isCompleted(); });
}

// The error of a work that is over; empty if it went well.
std::string error_of(const Watched& watched) {
  for (const MessageWork& pending : watched.pendings) {
    try {
      if (const auto error = pending.work->exception()) std::rethrow_exception(error);
    } catch (const std::exception& e) {
      return e.what();
    }
  }
  return {};
}

}  // namespace

std::string describe_break(const std::vector<TransferEnd>& messages, const std::string& error) {
  std::string peers;
  for (const TransferEnd& message : messages) peers += join_text(peers.empty() ? "rank " : ", rank ", message.peer);
  // The first sentence of a backend's error, without the source line that some put before it.
  const size_t begin = error.starts_with('[') && error.find("] ") < error.find('\n') ? error.find("] ") + 2 : 0;
  const size_t end = std::min(error.find('\n', begin), error.find(". ", begin));
  return join_text("the transfer with ", peers, " broke (", error.substr(begin, end - begin),
                   "); the process there has probably died, see its log");
}

Watcher::Watcher(Rank rank, std::chrono::milliseconds timeout, Board& board, Probe probe)
    : rank_(rank),
      timeout_(timeout),
      interval_(std::clamp(timeout / 50, std::chrono::milliseconds(1), kInterval)),
      board_(board),
      probe_(std::move(probe)),
      thread_([this] { run(); }) {}

Watcher::~Watcher() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

std::optional<Failure> Watcher::begin(const std::shared_ptr<Watched>& watched) {
  watched->start = Clock::now();
  const std::lock_guard lock(mutex_);
  if (failure_) return failure_;
  watched_.push_back(watched);
  if (watched_.size() == 1) wake_.notify_all();
  return {};
}

void Watcher::end(const std::shared_ptr<Watched>& watched) {
  const std::lock_guard lock(mutex_);
  watched_.remove(watched);
}

std::optional<Failure> Watcher::failure() {
  const std::lock_guard lock(mutex_);
  return failure_;
}

Failure Watcher::settle(Failure failure) {
  if (const auto known = this->failure()) return *known;
  if (const auto heard = board_.failure()) {
    failure = *heard;
  } else {
    if (const std::string trouble = board_.trouble(); !trouble.empty()) failure.reason += "; " + trouble;
    failure = board_.post(failure);
  }
  fall(failure);
  return *this->failure();
}

Failure Watcher::settle(const Watched& watched, const std::string& reason) {
  if (const auto known = failure()) return *known;
  if (const auto refusal = refusal_for(watched)) return settle(*refusal);
  return settle({rank_, watched.operation, reason});
}

void Watcher::fall(const Failure& failure) {
  Many watched;
  {
    const std::lock_guard lock(mutex_);
    if (failure_) return;
    failure_ = failure;
    watched = watched_;
  }
  for (const auto& one : watched) {
    for (const MessageWork& pending : one->pendings) {
      try {
        pending.abort();
      } catch (const std::exception&) {  // a backend that cannot: its own time-out ends the wait
      }
    }
  }
}

void Watcher::run() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    if (watched_.empty() && !published_) {
      wake_.wait(lock, [this] { return stop_ || !watched_.empty(); });
    }
    if (wake_.wait_for(lock, interval_, [this] { return stop_; })) return;
    Many over;
    for (auto it = watched_.begin(); it != watched_.end();) {
      const auto next = std::next(it);
      if (is_over(**it)) over.splice(over.end(), watched_, it);
      it = next;
    }
    const std::shared_ptr<Watched> oldest = watched_.empty() || failure_ ? nullptr : watched_.front();
    lock.unlock();
    for (const auto& watched : over) {
      if (const std::string error = error_of(*watched); !error.empty()) settle(*watched, error);
    }
    if (oldest && oldest->start + interval_ <= Clock::now()) {
      look_after(*oldest);
    } else if (published_) {
      board_.publish(rank_, {});
      published_ = false;
    }
    lock.lock();
  }
}

void Watcher::look_after(const Watched& watched) {
  const Waiting waiting = waiting_of(watched);
  board_.publish(rank_, waiting);
  published_ = true;
  if (const auto heard = board_.failure()) return fall(*heard);
  if (const auto refusal = refusal_for(watched)) {
    settle(*refusal);
    return;
  }
  if (const std::string trouble = trouble_with(watched, waiting); !trouble.empty()) {
    settle(watched, trouble);
  }
}

// Of a call up to this one, which others may wait for in vain; nothing if this rank refused it too.
std::optional<Failure> Watcher::refusal_for(const Watched& watched) {
  const Call& call = *watched.call;
  const std::lock_guard lock(refusals_mutex_);
  for (Refusal& refusal : board_.refusals()) refusals_.push_back(std::move(refusal));
  std::erase_if(refusals_, [&](const Refusal& refusal) {
    return refusal.group == call.group && watched.calls->refused(refusal.call);
  });
  const auto at = std::find_if(refusals_.begin(), refusals_.end(), [&](const Refusal& refusal) {
    return refusal.group == call.group && refusal.call <= call.number;
  });
  return at == refusals_.end() ? std::nullopt : std::optional(at->failure);
}

// Why the wait will not end well; empty while it may.
std::string Watcher::trouble_with(const Watched& watched, const Waiting& waiting) {
  if (std::string text = break_of(watched, waiting); !text.empty()) return text;
  if (std::string text = mismatch_of(watched, waiting); !text.empty()) return text;
  if (Clock::now() < watched.start + timeout_) return {};
  return describe_stall(rank_, waiting, timeout_, [this](Rank rank) { return board_.waiting(rank); });
}

// A peer may end in good order right after the last transfer, before this rank's wait has noticed that it is done. So a
// break counts when the same transfer is still waited for at the next look.
std::string Watcher::break_of(const Watched& watched, const Waiting& waiting) {
  for (const TransferEnd& message : waiting.messages) {
    const std::string error = probe_(message.peer);
    if (error.empty()) continue;
    const auto suspect = std::pair(watched.start, watched.current.load());
    if (std::exchange(suspect_, suspect) == suspect) return describe_break({message}, error);
    return {};
  }
  suspect_.reset();
  return {};
}

std::string Watcher::mismatch_of(const Watched& watched, const Waiting& waiting) {
  for (size_t i = 0; i < std::min(waiting.messages.size(), kMostCompared); ++i) {
    const TransferEnd& mine = waiting.messages[i];
    const std::optional<Waiting> theirs = board_.waiting(mine.peer);
    if (!theirs) continue;
    // A rank that waits in an earlier call is only late if that call was the same here. One that waits in a call of
    // other ranks may come yet.
    const bool same_ranks = theirs->call.group == waiting.call.group;
    if (const auto call = same_ranks ? watched.calls->find(theirs->call.number) : nullptr) {
      if (std::string text = describe_parting(rank_, *call, mine.peer, theirs->call); !text.empty()) return text;
    }
    for (const TransferEnd& message : theirs->messages) {
      std::string text = describe_mismatch(rank_, waiting.operation, mine, mine.peer, theirs->operation, message);
      if (!text.empty()) return text;
    }
  }
  return {};
}

}  // namespace evenspan::comm
