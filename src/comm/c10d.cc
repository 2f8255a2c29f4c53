// Ranks as the processes of a c10d process group, whatever its backend.
//
// Messages travel as bytes by send and recv. Gloo matches them by tag and, of one tag, in order. So the tag is a hash
// of the message's number, of its size, so that two ends with different sizes never meet (Gloo would end the process or
// leave a part of the buffer as it was), and of the calls so far, so that messages of different calls never meet. NCCL
// ignores tags and keeps the order by itself. A backend that can coalesce gets the transfers of an exchange as one
// group.
//
// On devices with streams `wait` orders the current stream after the transfers, as c10d does; the watcher then follows
// them until the device is done, with the same time-out.
#include <ATen/ops/empty.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/GroupRegistry.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include <algorithm>
#include <atomic>
#include <exception>
#include <map>

#include "comm/board.h"
#include "comm/failure.h"
#include "comm/gloo_threads.h"
#include "comm/transfers.h"
#include "comm/watcher.h"
#include "evenspan/comm/communicator.h"
#include "evenspan/core/error.h"
#include "evenspan/core/hash.h"

namespace evenspan::comm {
namespace {

// The watcher ends waits at the time-out. The backend's own time-out, which closes connections that others still need,
// comes later, should the watcher itself be stuck.
constexpr std::chrono::milliseconds kBackendGrace{30'000};

struct Item {
  TransferEnd message;
  at::Tensor bytes;
};

int tag_of(const TransferEnd& message, const Call& call) {
  Hasher hasher;
  hasher.add(call.hash);
  hasher.add(message.number);
  hasher.add(message.num_bytes);
  return static_cast<int>(uint64_t{1} << 30 | hasher.state() >> 34);
}

// Ends the waits for `work`, on a device's communicator those of everybody.
void abort_work(const c10::intrusive_ptr<c10d::Work>& work, const c10::intrusive_ptr<c10d::Backend>& backend) {
  try {
    work->abort();
  } catch (const std::exception&) {
    if (backend) backend->abort();
  }
}

bool uses_gloo(c10d::ProcessGroup& group) {
  constexpr auto kCpu = c10::DeviceType::CPU;
  return group.hasBackends() && group.hasBackendForDeviceType(kCpu) &&
         group.getBackend(kCpu)->getBackendName() == "gloo";
}

// Tells whether a Gloo connection still stands. Gloo says nothing to a transfer whose connection breaks in its middle,
// but it does to one that has not begun: so a receive that nobody serves is kept open for every peer, and asked.
class Canaries {
 public:
  explicit Canaries(c10d::ProcessGroup& group) {
    if (!uses_gloo(group)) return;
    canaries_.resize(group.getSize());
    for (int peer = 0; peer < group.getSize(); ++peer) {
      if (peer == group.getRank()) continue;
      std::vector<at::Tensor> tensors{at::empty({1}, at::kByte)};
      canaries_[peer] = group.recv(tensors, peer, kTag);
    }
  }

  // See Probe.
  std::string ask(Rank peer) const {
    if (canaries_.empty()) return {};
    try {
      canaries_[peer]->abort();  // so that the wait returns at once
      canaries_[peer]->wait();
    } catch (const std::exception& e) {
      return e.what();
    }
    return {};
  }

 private:
  static constexpr int kTag = 0x3FFFFFFF;  // below those of messages

  std::vector<c10::intrusive_ptr<c10d::Work>> canaries_;  // by peer; empty for other backends than Gloo
};

class C10dBackend : public Backend, public std::enable_shared_from_this<C10dBackend> {
 public:
  C10dBackend(c10::intrusive_ptr<c10d::ProcessGroup> group, std::chrono::milliseconds timeout)
      : group_(std::move(group)),
        rank_(group_->getRank()),
        size_(group_->getSize()),
        timeout_(timeout),
        num_sent_(size_),
        num_received_(size_),
        board_(group_->getStore()),
        canaries_(*group_),
        watcher_(rank_, timeout, board_, [this](Rank peer) { return canaries_.ask(peer); }) {
    if (uses_gloo(*group_)) calm_gloo_loops();
  }

  Rank rank() const override { return rank_; }
  int32_t size() const override { return size_; }

  std::unique_ptr<Work> exchange(std::vector<Transfer> sends, std::vector<Transfer> receives,
                                 const std::string& operation, const std::shared_ptr<Calls>& calls) override;

  void abort(const std::string& operation, const std::string& reason) noexcept override {
    told_ = true;
    watcher_.settle({rank_, operation, reason});
    board_.acknowledge(rank_, size_);
  }
  void refuse(const std::string& operation, const std::string& reason, Calls& calls) noexcept override {
    calls.refuse();
    const auto call = calls.current();
    if (!watcher_.failure()) board_.post(Refusal{{rank_, operation, reason}, call->number, call->group});
  }
  const std::shared_ptr<Calls>& calls() override { return calls_; }

  void complete(const std::shared_ptr<Watched>& watched);
  void throw_if_failed(const std::string& operation);

 private:
  using Items = std::vector<Item>;

  c10::intrusive_ptr<c10d::Backend> backend_for(c10::DeviceType device, const std::string& operation) const;
  c10::intrusive_ptr<c10d::Work> start(Item& item, const Call& call) const;
  std::vector<MessageWork> start_group(Items& items, c10::DeviceType device, const Watched& watched);
  [[noreturn]] void report(const Failure& failure, const std::string& operation);
  [[noreturn]] void lose(const Watched& watched, const std::vector<TransferEnd>& messages, const std::string& error);

  const c10::intrusive_ptr<c10d::ProcessGroup> group_;
  const Rank rank_;
  const int32_t size_;
  const std::chrono::milliseconds timeout_;
  std::vector<int64_t> num_sent_;      // by destination
  std::vector<int64_t> num_received_;  // by source
  const std::shared_ptr<Calls> calls_ = std::make_shared<Calls>();
  std::atomic<bool> told_ = false;  // of the group's failure
  Board board_;
  const Canaries canaries_;
  Watcher watcher_;
};

class C10dWork : public Work {
 public:
  C10dWork(std::shared_ptr<C10dBackend> backend, std::shared_ptr<Watched> watched, std::vector<at::Tensor> tensors)
      : backend_(std::move(backend)), watched_(std::move(watched)), tensors_(std::move(tensors)) {}

  ~C10dWork() override {
    try {
      if (!waited_) wait();
    } catch (const std::exception&) {  // the next call of this rank throws it again
    }
  }

  void wait() override {
    if (waited_) return backend_->throw_if_failed(watched_->operation);
    waited_ = true;
    backend_->complete(watched_);
  }

 private:
  const std::shared_ptr<C10dBackend> backend_;
  const std::shared_ptr<Watched> watched_;
  const std::vector<at::Tensor> tensors_;  // kept alive here: the watcher may hold `watched_` for longer
  bool waited_ = false;
};

std::unique_ptr<Work> C10dBackend::exchange(std::vector<Transfer> sends, std::vector<Transfer> receives,
                                            const std::string& operation, const std::shared_ptr<Calls>& calls) {
  throw_if_failed(operation);
  check_transfers(rank_, size_, sends, receives, operation);
  std::map<c10::DeviceType, Items> items;  // receives first: a send finds its receive posted
  std::vector<at::Tensor> tensors;
  const auto add = [&](const std::vector<Transfer>& transfers, TransferEnd::Direction direction, auto& numbers) {
    for (const Transfer& transfer : transfers) {
      if (transfer.data.numel() == 0) continue;
      const at::Tensor bytes = flat_bytes(transfer.data);
      items[bytes.device().type()].push_back(
          {{direction, transfer.peer, numbers[transfer.peer]++, bytes.numel()}, bytes});
      tensors.push_back(bytes);
    }
  };
  for (const auto* transfers : {&receives, &sends}) {
    for (const Transfer& transfer : *transfers) backend_for(transfer.data.device().type(), operation);
  }
  add(receives, TransferEnd::Direction::receive, num_received_);
  add(sends, TransferEnd::Direction::send, num_sent_);
  auto watched = std::make_shared<Watched>();
  watched->operation = operation;
  watched->calls = calls;
  watched->call = calls->current();
  if (!items.empty()) calls->start_transfers();
  for (auto& [device, group] : items) {
    for (MessageWork& pending : start_group(group, device, *watched)) watched->pendings.push_back(std::move(pending));
  }
  return std::make_unique<C10dWork>(shared_from_this(), std::move(watched), std::move(tensors));
}

// Null for a group whose operations are implemented as a whole, without backends.
c10::intrusive_ptr<c10d::Backend> C10dBackend::backend_for(c10::DeviceType device, const std::string& operation) const {
  if (!group_->hasBackends()) return {};
  const bool known = group_->hasBackendForDeviceType(device);
  const auto backend = known ? group_->getBackend(device) : nullptr;
  if (!backend || (backend->getBackendName() == "gloo" && device != c10::DeviceType::CPU)) {
    fail(ErrorKind::unsupported, "[", operation,
         "] transfers need a backend for the device of their tensors, but group \"", group_->getGroupName(), "\" has ",
         known ? "only Gloo" : "none", " for ", c10::DeviceTypeName(device, /*lower_case=*/true),
         "; make the process group with the backends \"cpu:gloo,cuda:nccl\"");
  }
  return backend;
}

c10::intrusive_ptr<c10d::Work> C10dBackend::start(Item& item, const Call& call) const {
  std::vector<at::Tensor> tensors{item.bytes};
  const int tag = tag_of(item.message, call);
  return item.message.direction == TransferEnd::Direction::send ? group_->send(tensors, item.message.peer, tag)
                                                                : group_->recv(tensors, item.message.peer, tag);
}

std::vector<MessageWork> C10dBackend::start_group(Items& items, c10::DeviceType device, const Watched& watched) {
  const auto backend = backend_for(device, watched.operation);
  const bool coalesced = backend && backend->supportsCoalescing();
  // With a limit, NCCL's wait would block the thread instead of ordering the stream.
  const auto limit = device == c10::DeviceType::CPU ? timeout_ + kBackendGrace : kNoTimeout;
  std::vector<MessageWork> pendings;
  const auto add = [&](const c10::intrusive_ptr<c10d::Work>& work, std::vector<TransferEnd> messages) {
    if (work) pendings.push_back({work, std::move(messages), limit, [work, backend] { abort_work(work, backend); }});
  };
  std::vector<TransferEnd> messages;
  try {
    if (coalesced) group_->startCoalescing(device);
    for (Item& item : items) {
      messages.push_back(item.message);
      const auto work = start(item, *watched.call);
      if (!coalesced) add(work, std::exchange(messages, {}));
    }
    if (coalesced) add(group_->endCoalescing(device), messages);
  } catch (const std::exception& e) {
    lose(watched, messages, e.what());
  }
  return pendings;
}

void C10dBackend::complete(const std::shared_ptr<Watched>& watched) {
  if (watched->pendings.empty()) return throw_if_failed(watched->operation);
  if (const auto failure = watcher_.begin(watched)) report(*failure, watched->operation);
  bool done = true;
  for (size_t i = 0; i < watched->pendings.size(); ++i) {
    const MessageWork& pending = watched->pendings[i];
    watched->current = i;
    std::string error;
    try {
      if (!pending.work->wait(pending.limit)) error = "aborted";
      done = done && pending.work->isCompleted();
    } catch (const std::exception& e) {
      error = e.what();
    }
    if (error.empty()) continue;
    watcher_.end(watched);
    lose(*watched, pending.messages, error);
  }
  if (done) {
    watcher_.end(watched);
  } else {
    watched->on_stream = true;
  }
}

void C10dBackend::throw_if_failed(const std::string& operation) {
  if (const auto failure = watcher_.failure()) report(*failure, operation);
}

void C10dBackend::report(const Failure& failure, const std::string& operation) {
  board_.acknowledge(rank_, size_);
  throw_failure(failure, operation, &told_);
}

void C10dBackend::lose(const Watched& watched, const std::vector<TransferEnd>& messages, const std::string& error) {
  report(watcher_.settle(watched, describe_break(messages, error)), watched.operation);
}

}  // namespace

Communicator make_c10d_communicator(const std::string& group_name, CommunicatorOptions options) {
  check_timeout(options.timeout, "make_c10d_communicator");
  c10::intrusive_ptr<c10d::ProcessGroup> group;
  try {
    group = c10d::resolve_process_group(group_name);
  } catch (const std::exception&) {
    fail_invalid("[make_c10d_communicator] the group is in c10d's registry, but there is none with the name \"",
                 group_name, "\"; call torch.distributed.init_process_group first and pass its group_name");
  }
  return Communicator(std::make_shared<C10dBackend>(std::move(group), options.timeout));
}

}  // namespace evenspan::comm
