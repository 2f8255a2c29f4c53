// A c10d backend inside one process: ranks are threads, every rank has a process group of its own in c10d's registry.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/GroupRegistry.hpp>
#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <stdexcept>
#include <tuple>

#include "ranks.h"

namespace evenspan::comm {

struct FakeOptions {
  bool coalesces = false;     // the backend takes groups, as NCCL does
  bool has_streams = false;   // a wait returns before the transfer is complete, as on a device
  std::string name = "fake";  // "gloo": the communicator asks whether connections stand
  c10::intrusive_ptr<c10d::Store> store = c10::make_intrusive<c10d::HashStore>();
};

// What the ranks of a fake group share. Like Gloo it matches by tag and moves data when both ends are there.
struct FakeNet {
  struct Op {
    at::Tensor data;
    int peer = -1;
    bool done = false;
  };
  using Key = std::tuple<int, int, int>;  // source, destination, tag

  std::mutex mutex;  // guards all below
  std::condition_variable changed;
  std::map<Key, std::deque<std::shared_ptr<Op>>> sends;
  std::map<Key, std::deque<std::shared_ptr<Op>>> receives;
  std::set<int> dead;
  bool mute = false;  // transfers that have begun are not told of a dead peer, as in Gloo
  int num_groups = 0;

  // Call with the mutex held.
  void match(const Key& key) {
    auto& from = sends[key];
    auto& to = receives[key];
    while (!from.empty() && !to.empty()) {
      std::memcpy(to.front()->data.mutable_data_ptr(), from.front()->data.const_data_ptr(),
                  from.front()->data.nbytes());
      from.front()->done = to.front()->done = true;
      from.pop_front();
      to.pop_front();
    }
    changed.notify_all();
  }

  void kill(int rank) {
    const std::lock_guard lock(mutex);
    dead.insert(rank);
    changed.notify_all();
  }
};

class FakeWork : public c10d::Work {
 public:
  FakeWork(std::shared_ptr<FakeNet> net, std::vector<std::shared_ptr<FakeNet::Op>> ops, bool has_streams, bool mute)
      : net_(std::move(net)), ops_(std::move(ops)), has_streams_(has_streams), mute_(mute) {}

  bool wait(std::chrono::milliseconds timeout = kNoTimeout) override {
    if (has_streams_) return true;
    std::unique_lock lock(net_->mutex);
    const bool over = net_->changed.wait_for(lock, timeout == kNoTimeout ? std::chrono::minutes(5) : timeout, [&] {
      check_peers();
      return aborted_ || done();
    });
    if (!over) throw std::runtime_error("[fake.cc:2] the backend's own time-out came first");
    return !std::exchange(aborted_, false);
  }

  bool isCompleted() override {
    const std::lock_guard lock(net_->mutex);
    return done() || aborted_;
  }

  void abort() override {
    const std::lock_guard lock(net_->mutex);
    aborted_ = true;
    net_->changed.notify_all();
  }

 private:
  bool done() const {
    return std::all_of(ops_.begin(), ops_.end(), [](const auto& op) { return op->done; });
  }
  void check_peers() const {
    for (const auto& op : ops_) {
      if (!op->done && net_->dead.contains(op->peer) && !(net_->mute && mute_)) {
        throw std::runtime_error("[fake.cc:1] Connection closed by peer. Check the logs!\nmore");
      }
    }
  }

  const std::shared_ptr<FakeNet> net_;
  const std::vector<std::shared_ptr<FakeNet::Op>> ops_;
  const bool has_streams_;
  const bool mute_;
  bool aborted_ = false;
};

class FakeBackend : public c10d::Backend {
 public:
  FakeBackend(int rank, int size, std::shared_ptr<FakeNet> net, FakeOptions options)
      : Backend(rank, size), net_(std::move(net)), options_(std::move(options)) {}

  const std::string getBackendName() const override { return options_.name; }
  bool supportsCoalescing() const override { return options_.coalesces; }

  void startCoalescing() override {
    const std::lock_guard lock(net_->mutex);
    ++net_->num_groups;
    group_.emplace();
  }
  c10::intrusive_ptr<c10d::Work> endCoalescing() override { return work(*std::exchange(group_, std::nullopt), true); }

  c10::intrusive_ptr<c10d::Work> send(std::vector<at::Tensor>& tensors, int peer, int tag) override {
    return start(net_->sends, {rank_, peer, tag}, tensors.front(), peer);
  }
  c10::intrusive_ptr<c10d::Work> recv(std::vector<at::Tensor>& tensors, int peer, int tag) override {
    return start(net_->receives, {peer, rank_, tag}, tensors.front(), peer);
  }

 private:
  using Queues = std::map<FakeNet::Key, std::deque<std::shared_ptr<FakeNet::Op>>>;

  c10::intrusive_ptr<c10d::Work> start(Queues& queues, const FakeNet::Key& key, const at::Tensor& data, int peer) {
    auto op = std::make_shared<FakeNet::Op>(FakeNet::Op{data, peer});
    const std::lock_guard lock(net_->mutex);
    queues[key].push_back(op);
    net_->match(key);
    if (group_) {
      group_->push_back(op);
      return {};
    }
    return work({op}, data.nbytes() > 1);
  }

  c10::intrusive_ptr<c10d::Work> work(std::vector<std::shared_ptr<FakeNet::Op>> ops, bool mute) {
    return c10::make_intrusive<FakeWork>(net_, std::move(ops), options_.has_streams, mute);
  }

  const std::shared_ptr<FakeNet> net_;
  const FakeOptions options_;
  std::optional<std::vector<std::shared_ptr<FakeNet::Op>>> group_;
};

// The groups of all ranks; their names are in the registry while it lives.
class FakeGroup {
 public:
  explicit FakeGroup(int32_t num_ranks, FakeOptions options = {}) {
    for (int32_t rank = 0; rank < num_ranks; ++rank) {
      constexpr auto kType = c10d::ProcessGroup::BackendType::CUSTOM;
      auto group = c10::make_intrusive<c10d::ProcessGroup>(options.store, rank, num_ranks);
      group->setBackend(at::kCPU, kType, c10::make_intrusive<FakeBackend>(rank, num_ranks, net, options));
      group->setDefaultBackend(kType);
      group->setGroupName(name(rank));
      c10d::register_process_group(name(rank), group);
      groups_.push_back(std::move(group));
    }
  }
  ~FakeGroup() {
    for (size_t rank = 0; rank < groups_.size(); ++rank) c10d::unregister_process_group(name(static_cast<int>(rank)));
  }

  static std::string name(int32_t rank) { return "fake group of rank " + std::to_string(rank); }

  // Runs the body on a thread per rank; the text of what it throws, by rank.
  std::vector<std::string> errors_of(const Body& body, CommunicatorOptions options = {std::chrono::seconds(5)}) const {
    return comm::errors_of(static_cast<int32_t>(groups_.size()), [&](const Communicator& threads) {
      body(make_c10d_communicator(name(threads.rank()), options));
    });
  }

  const std::shared_ptr<FakeNet> net = std::make_shared<FakeNet>();

 private:
  std::vector<c10::intrusive_ptr<c10d::ProcessGroup>> groups_;
};

}  // namespace evenspan::comm
