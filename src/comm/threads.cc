// Ranks as threads of one process. A send is a note in a mailbox; the receiver copies straight out of the sender's
// tensor. Whoever waits takes everything that has arrived for its started receives, whichever exchange they belong to,
// so a send is consumed once its receiver has started the receive and waits for anything at all.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>

#include "comm/failure.h"
#include "comm/stream_mark.h"
#include "comm/transfers.h"
#include "evenspan/comm/communicator.h"
#include "evenspan/core/error.h"

namespace evenspan::comm {
namespace {

// The calls of a rank, and which of them an exchange is a part of.
struct Turn {
  std::shared_ptr<const Calls> calls;
  std::shared_ptr<const Call> call;
};

// One message, seen from its sender. Guarded by the world's mutex; while it is being copied the receiver alone reads
// `data` and writes `consumed`.
struct Parcel {
  enum class State { posted, copying, consumed };
  std::string operation;
  Turn turn;
  TransferEnd message;
  at::Tensor data;
  State state = State::posted;
  StreamMark sent;      // the sender's stream when it was sent
  StreamMark consumed;  // the receiver's stream after the copy
};

// One message, seen from its receiver. Guarded by the world's mutex.
struct Slot {
  std::string operation;
  Turn turn;
  TransferEnd message;
  at::Tensor data;
  bool arrived = false;
};

// From one rank to one other.
struct Mailbox {
  int64_t num_sent = 0;
  int64_t num_received = 0;                     // receives started
  std::deque<std::shared_ptr<Parcel>> parcels;  // sent and not yet taken, in the order of their numbers
};

// The transfers of one exchange.
struct Flight {
  std::string operation;
  Turn turn;
  std::vector<std::shared_ptr<Parcel>> parcels;
  std::vector<std::shared_ptr<Slot>> slots;
};

void copy_message(const at::Tensor& from, const at::Tensor& to) {
  if (from.is_cpu() && to.is_cpu()) {
    std::memcpy(to.mutable_data_ptr(), from.const_data_ptr(), static_cast<size_t>(num_bytes(from)));
  } else {
    flat_bytes(to).copy_(flat_bytes(from));
  }
}

// What the ranks share. All functions may be called from any thread, for one rank from one thread at a time.
class World {
 public:
  World(int32_t size, std::chrono::milliseconds timeout)
      : size_(size), timeout_(timeout), changed_(size), mailboxes_(static_cast<size_t>(size) * size), ranks_(size) {}

  int32_t size() const { return size_; }

  // Numbers the transfers, posts the sends and opens the receives.
  Flight start(Rank rank, std::vector<Transfer> sends, std::vector<Transfer> receives, const std::string& operation,
               const std::shared_ptr<Calls>& calls) {
    check_transfers(rank, size_, sends, receives, operation);
    Flight flight{operation, {calls, calls->current()}, {}, {}};
    const std::lock_guard lock(mutex_);
    if (failure_) throw_failure(*failure_, operation, &ranks_[rank].told);
    for (Transfer& transfer : receives) {
      if (transfer.data.numel() == 0) continue;
      auto slot = std::make_shared<Slot>();
      slot->operation = operation;
      slot->turn = flight.turn;
      slot->message = {TransferEnd::Direction::receive, transfer.peer, mailbox(transfer.peer, rank).num_received++,
                       num_bytes(transfer.data)};
      slot->data = std::move(transfer.data);
      ranks_[rank].open.push_back(slot);
      flight.slots.push_back(std::move(slot));
    }
    for (Transfer& transfer : sends) {
      if (transfer.data.numel() == 0) continue;
      auto parcel = std::make_shared<Parcel>();
      parcel->operation = operation;
      parcel->turn = flight.turn;
      parcel->message = {TransferEnd::Direction::send, transfer.peer, mailbox(rank, transfer.peer).num_sent++,
                         num_bytes(transfer.data)};
      parcel->sent.record(transfer.data.device());
      parcel->data = std::move(transfer.data);
      mailbox(rank, transfer.peer).parcels.push_back(parcel);
      changed_[transfer.peer].notify_all();
      flight.parcels.push_back(std::move(parcel));
    }
    if (!flight.slots.empty() || !flight.parcels.empty()) calls->start_transfers();
    return flight;
  }

  // Returns when all transfers of the flight are complete; throws communication on failure.
  void complete(Rank rank, const Flight& flight) {
    std::unique_lock lock(mutex_);
    const auto deadline = std::chrono::steady_clock::now() + timeout_;
    bool late = false;
    while (true) {
      if (failure_) {
        give_up(lock, rank, flight);
        throw_failure(*failure_, flight.operation, &ranks_[rank].told);
      }
      if (take_one(lock, rank)) continue;
      const Waiting waiting = open_messages(flight);
      if (waiting.messages.empty()) break;
      if (const Refusal* refusal = refusal_for(rank, flight.turn)) {
        fail_locked(refusal->failure);
      } else if (const std::optional<Rank> gone = first_ended(waiting)) {
        const Refusal* alone = refused_alone(*gone);
        fail_locked(
            alone ? alone->failure
                  : Failure{rank, flight.operation,
                            join_text("rank ", *gone, " has ended and does not come; let every rank do its part of \"",
                                      flight.operation, "\" before it returns")});
      } else if (late) {
        fail_locked({rank, flight.operation,
                     describe_stall(rank, waiting, timeout_, [this](Rank other) { return ranks_[other].waiting; })});
      } else {
        ranks_[rank].waiting = waiting;
        late = changed_[rank].wait_until(lock, deadline) == std::cv_status::timeout;
        ranks_[rank].waiting.reset();
      }
    }
    for (const auto& parcel : flight.parcels) parcel->consumed.block(parcel->data.device());
  }

  void fail(const Failure& failure) {
    const std::lock_guard lock(mutex_);
    ranks_[failure.rank].told = true;
    fail_locked(failure);
  }

  // The rank takes no part in the current call: whoever waits in it, or later, and does take part fails.
  void refuse(const Failure& failure, Calls& calls) {
    calls.refuse();
    const auto call = calls.current();
    const std::lock_guard lock(mutex_);
    refusals_[call->group].push_back({failure, call->number, call->group});
    notify_all();
  }

  const std::shared_ptr<Calls>& calls(Rank rank) { return ranks_[rank].calls; }

  // The rank starts nothing any more: whoever waits for something that it has not sent fails at once.
  void end(Rank rank) {
    const std::lock_guard lock(mutex_);
    ranks_[rank].ended = true;
    notify_all();
  }

  std::optional<Failure> failure() {
    const std::lock_guard lock(mutex_);
    return failure_;
  }

 private:
  struct PerRank {
    std::list<std::shared_ptr<Slot>> open;  // started, not arrived
    std::optional<Waiting> waiting;
    bool ended = false;
    std::atomic<bool> told = false;                                  // of the failure
    const std::shared_ptr<Calls> calls = std::make_shared<Calls>();  // guard themselves
    std::map<uint64_t, size_t> num_shared_refusals;  // by group: of calls that this rank refused too, at the front
  };

  Mailbox& mailbox(Rank source, Rank destination) {
    return mailboxes_[static_cast<size_t>(source) * size_ + destination];
  }

  void notify_all() {
    for (auto& changed : changed_) changed.notify_all();
  }

  void fail_locked(const Failure& failure) {
    if (failure_) return;
    failure_ = failure;
    notify_all();
  }

  // Takes one message that has arrived for any open receive of the rank; false if there is none. The first open receive
  // from a source and the first parcel from there are the same message.
  bool take_one(std::unique_lock<std::mutex>& lock, Rank rank) {
    auto& open = ranks_[rank].open;
    for (auto it = open.begin(); it != open.end(); ++it) {
      auto& parcels = mailbox((*it)->message.peer, rank).parcels;
      if (parcels.empty()) continue;
      const std::shared_ptr<Slot> slot = *it;
      std::shared_ptr<Parcel> parcel = std::move(parcels.front());
      open.erase(it);
      parcels.pop_front();
      receive(lock, rank, *slot, *parcel);
      parcel.reset();  // under the lock: the sender's hand is the last on its tensor
      return true;
    }
    return false;
  }

  void receive(std::unique_lock<std::mutex>& lock, Rank rank, Slot& slot, Parcel& parcel) {
    const Rank source = slot.message.peer;
    if (const std::string parting = describe_parting(source, *parcel.turn.call, rank, *slot.turn.call);
        !parting.empty()) {
      const Refusal* refusal = refusal_for(rank, slot.turn);
      if (!refusal) refusal = refusal_for(source, parcel.turn);
      return fail_locked(refusal ? refusal->failure : Failure{rank, slot.operation, parting});
    }
    const std::string mismatch =
        describe_mismatch(source, parcel.operation, parcel.message, rank, slot.operation, slot.message);
    if (!mismatch.empty()) return fail_locked({rank, slot.operation, mismatch});
    parcel.state = Parcel::State::copying;
    lock.unlock();
    std::string error;
    try {
      parcel.sent.block(parcel.data.device());
      copy_message(parcel.data, slot.data);
      parcel.consumed.record(parcel.data.device());
    } catch (const std::exception& e) {
      error = e.what();
    }
    lock.lock();
    parcel.state = Parcel::State::consumed;
    slot.arrived = true;
    changed_[source].notify_all();
    if (!error.empty()) {
      fail_locked({rank, slot.operation, join_text("cannot copy what rank ", source, " sent: ", error)});
    }
  }

  Waiting open_messages(const Flight& flight) const {
    Waiting waiting{flight.operation, {}, *flight.turn.call};
    for (const auto& slot : flight.slots) {
      if (!slot->arrived) waiting.messages.push_back(slot->message);
    }
    for (const auto& parcel : flight.parcels) {
      if (parcel->state != Parcel::State::consumed) waiting.messages.push_back(parcel->message);
    }
    return waiting;
  }

  // The first refusal of a call that the rank has come to and did not refuse itself; null if there is none.
  const Refusal* refusal_for(Rank rank, const Turn& turn) {
    const Call& call = *turn.call;
    const auto at = refusals_.find(call.group);
    if (at == refusals_.end()) return nullptr;
    const std::vector<Refusal>& refusals = at->second;
    size_t& first = ranks_[rank].num_shared_refusals[call.group];
    while (first < refusals.size() && turn.calls->refused(refusals[first].call)) ++first;
    const auto open = std::find_if(refusals.begin() + static_cast<int64_t>(first), refusals.end(), [&](const auto& r) {
      return r.call <= call.number && !turn.calls->refused(r.call);
    });
    return open == refusals.end() ? nullptr : &*open;
  }

  // The first call of any group that the rank refused and no other member has refused so far; null if there is none. A
  // rank that ends after that ends because of it, whether or not the other members have come to the call yet.
  const Refusal* refused_alone(Rank rank) const {
    for (const auto& [group, refusals] : refusals_) {
      for (const Refusal& refusal : refusals) {
        const auto is_shared = [&](const Refusal& other) {
          return other.call == refusal.call && other.failure.rank != rank;
        };
        if (refusal.failure.rank == rank && std::none_of(refusals.begin(), refusals.end(), is_shared)) return &refusal;
      }
    }
    return nullptr;
  }

  // Whatever the peer was sent or has sent is open here: a peer that ended will not change that.
  std::optional<Rank> first_ended(const Waiting& waiting) const {
    for (const TransferEnd& message : waiting.messages) {
      if (ranks_[message.peer].ended) return message.peer;
    }
    return {};
  }

  // After a failure: nobody touches the flight's tensors any more.
  void give_up(std::unique_lock<std::mutex>& lock, Rank rank, const Flight& flight) {
    for (const auto& slot : flight.slots) std::erase(ranks_[rank].open, slot);
    changed_[rank].wait(lock, [&] {
      return std::none_of(flight.parcels.begin(), flight.parcels.end(),
                          [](const auto& parcel) { return parcel->state == Parcel::State::copying; });
    });
    for (const auto& parcel : flight.parcels) {
      std::erase(mailbox(rank, parcel->message.peer).parcels, parcel);
    }
  }

  const int32_t size_;
  const std::chrono::milliseconds timeout_;
  std::mutex mutex_;                              // guards all below
  std::vector<std::condition_variable> changed_;  // by rank: something happened that it may wait for
  std::vector<Mailbox> mailboxes_;                // by source, then destination
  std::vector<PerRank> ranks_;
  std::map<uint64_t, std::vector<Refusal>> refusals_;  // by group, the oldest first
  std::optional<Failure> failure_;
};

class ThreadsBackend : public Backend, public std::enable_shared_from_this<ThreadsBackend> {
 public:
  ThreadsBackend(std::shared_ptr<World> world, Rank rank) : world_(std::move(world)), rank_(rank) {}
  ~ThreadsBackend() override { world_->end(rank_); }

  Rank rank() const override { return rank_; }
  int32_t size() const override { return world_->size(); }
  std::unique_ptr<Work> exchange(std::vector<Transfer> sends, std::vector<Transfer> receives,
                                 const std::string& operation, const std::shared_ptr<Calls>& calls) override;
  void abort(const std::string& operation, const std::string& reason) noexcept override {
    world_->fail({rank_, operation, reason});
  }
  void refuse(const std::string& operation, const std::string& reason, Calls& calls) noexcept override {
    world_->refuse({rank_, operation, reason}, calls);
  }
  const std::shared_ptr<Calls>& calls() override { return world_->calls(rank_); }
  void complete(const Flight& flight) { world_->complete(rank_, flight); }

 private:
  const std::shared_ptr<World> world_;
  const Rank rank_;
};

class ThreadsWork : public Work {
 public:
  ThreadsWork(std::shared_ptr<ThreadsBackend> backend, Flight flight)
      : backend_(std::move(backend)), flight_(std::move(flight)) {}

  ~ThreadsWork() override {
    if (waited_) return;
    try {
      wait();
    } catch (const std::exception&) {  // the next call of this rank throws it again
    }
  }

  void wait() override {
    waited_ = true;
    backend_->complete(flight_);
  }

 private:
  const std::shared_ptr<ThreadsBackend> backend_;
  const Flight flight_;
  bool waited_ = false;
};

std::unique_ptr<Work> ThreadsBackend::exchange(std::vector<Transfer> sends, std::vector<Transfer> receives,
                                               const std::string& operation, const std::shared_ptr<Calls>& calls) {
  return std::make_unique<ThreadsWork>(shared_from_this(),
                                       world_->start(rank_, std::move(sends), std::move(receives), operation, calls));
}

// Each waits for all others: far above this, ranks only take turns, and systems refuse to start them half-way.
constexpr int32_t kMostRanks = 1024;

std::shared_ptr<World> make_world(int32_t num_ranks, const CommunicatorOptions& options, const char* operation) {
  if (num_ranks < 1) {
    fail_invalid("[", operation, "] there is at least 1 rank, but num_ranks is ", num_ranks,
                 "; give a positive number");
  }
  if (num_ranks > kMostRanks) {
    fail_invalid("[", operation, "] ", num_ranks, " ranks are more threads than one process serves, at most ",
                 kMostRanks, "; use fewer ranks, or processes");
  }
  check_timeout(options.timeout, operation);
  return std::make_shared<World>(num_ranks, options.timeout);
}

std::string text_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    return e.what();
  } catch (...) {
    return "an exception that is no std::exception";
  }
}

}  // namespace

std::vector<Communicator> make_threads_communicators(int32_t num_ranks, CommunicatorOptions options) {
  const auto world = make_world(num_ranks, options, "make_threads_communicators");
  std::vector<Communicator> communicators;
  for (Rank rank{0}; rank < num_ranks; ++rank.value) {
    communicators.emplace_back(std::make_shared<ThreadsBackend>(world, rank));
  }
  return communicators;
}

void run_threads(int32_t num_ranks, const std::function<void(const Communicator&)>& body, CommunicatorOptions options) {
  const auto world = make_world(num_ranks, options, "run_threads");
  std::mutex mutex;
  std::vector<std::exception_ptr> errors(num_ranks);
  std::optional<Rank> first;
  const auto run = [&](Rank rank) {
    const Communicator communicator(std::make_shared<ThreadsBackend>(world, rank));  // ends after the failure is known
    try {
      body(communicator);
    } catch (...) {
      {
        const std::lock_guard lock(mutex);
        errors[rank] = std::current_exception();
        if (!first) first = rank;
      }
      world->fail({rank, "the body of run_threads", text_of(errors[rank])});
    }
    world->end(rank);
  };
  std::vector<std::thread> threads;
  std::string spawn_error;
  try {
    for (Rank rank{0}; rank < num_ranks; ++rank.value) threads.emplace_back(run, rank);
  } catch (const std::system_error& e) {
    spawn_error = e.what();
    world->fail({Rank(static_cast<int64_t>(threads.size())), "run_threads", spawn_error});
  }
  for (std::thread& thread : threads) thread.join();
  if (!spawn_error.empty()) {
    fail(ErrorKind::resource, "[run_threads] every rank has a thread, but the system gave ", threads.size(), " of ",
         num_ranks, " (", spawn_error, "); use fewer ranks");
  }
  if (!first) return;
  // All others only follow the rank that the failure names.
  const std::optional<Failure> failure = world->failure();
  std::rethrow_exception(failure && errors[failure->rank] ? errors[failure->rank] : errors[*first]);
}

}  // namespace evenspan::comm
