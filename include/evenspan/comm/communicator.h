// Ranks that talk to each other: a value handle over a narrow backend.
//
// Errors. What the caller did wrong is invalid_argument or unsupported, thrown before anything starts: the rank refuses
// the call. Ranks that all refuse a call go on; one that waits in this call or in a later one, and did not refuse it
// too, fails. What goes wrong between ranks is communication: the first failure of any rank is the failure of all,
// every waiting and every later call of every rank throws it, with the text `[own operation] rank 2 failed in "its
// operation": reason`, and the communicator stays failed.
//
// Order. All ranks make the same calls in the same order (evenspan/comm/calls.h). Messages of different calls do not
// meet on threads and Gloo, where ranks that part get an error that names the calls of both; NCCL knows no tags, so
// there `call_hash` tells, compared wherever the ranks gather something anyway.
//
// Groups. `split` makes a communicator of some of the ranks. Groups call for themselves, each any number of times, and
// members of a group make its calls and those of all ranks in one order. The ranks stay one whole: what fails in a
// group fails everywhere, with the number of the rank among all; a call of a group concerns its members alone until
// then, also when some of them refuse it.
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "evenspan/comm/calls.h"
#include "evenspan/core/ids.h"

namespace evenspan::comm {

// A contiguous tensor and the rank that it goes to or comes from. Both ends give the same number of bytes.
struct Transfer {
  Rank peer;  // never the own rank
  at::Tensor data;
};

// Transfers under way. Destroying one that was not waited for waits for it and drops its error.
class Work {
 public:
  virtual ~Work() = default;
  // Returns when all transfers are complete: sent data may be overwritten, received data read. On devices with streams
  // that holds for what the calling thread gives to its current stream from here on. Throws communication with the
  // origin of the failure (rank, operation, reason) when any rank failed or the time-out, counted from this call,
  // passed. A second call only throws.
  virtual void wait() = 0;
};

// What a backend supplies. All calls come from one thread at a time.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual Rank rank() const = 0;
  virtual int32_t size() const = 0;
  // Starts all sends and receives together (grouped: order among peers cannot deadlock). Between two ranks, sends match
  // receives in the order in which they were started; works may be waited for in any order. Empty tensors are skipped
  // at both ends. `operation` names the exchange in errors. The tensors are kept alive. `calls` are those that it is a
  // part of, of this communicator or of a group of its ranks; they live as long as the work.
  virtual std::unique_ptr<Work> exchange(std::vector<Transfer> sends, std::vector<Transfer> receives,
                                         const std::string& operation, const std::shared_ptr<Calls>& calls) = 0;
  // Tells every rank that this one failed; their pending and later calls throw communication with rank and reason.
  // Never throws, never blocks for long.
  virtual void abort(const std::string& operation, const std::string& reason) noexcept = 0;
  // Tells every rank that this one does not take part in the current one of `calls`, which are as in `exchange`; see
  // above. Never throws.
  virtual void refuse(const std::string& operation, const std::string& reason, Calls& calls) noexcept = 0;
  // Of this rank; never null.
  virtual const std::shared_ptr<Calls>& calls() = 0;
};

// A value: copies share the backend. Never global; passed where it is needed.
class Communicator {
 public:
  Communicator() = default;
  explicit Communicator(std::shared_ptr<Backend> backend) : backend_(std::move(backend)) {}

  explicit operator bool() const { return backend_ != nullptr; }
  Rank rank() const { return backend_->rank(); }
  int32_t size() const { return backend_->size(); }
  std::unique_ptr<Work> exchange(std::vector<Transfer> sends, std::vector<Transfer> receives,
                                 const std::string& operation) const {
    return backend_->exchange(std::move(sends), std::move(receives), operation, backend_->calls());
  }
  void abort(const std::string& operation, const std::string& reason) const noexcept {
    backend_->abort(operation, reason);
  }
  // Runs `body` as one call of all ranks and returns what it returns. When it throws, the others hear of it before it
  // goes on: this rank has refused the call if it had started no transfer, and has failed otherwise. `subject` says
  // what the operation is of; ranks that differ in it make different calls.
  template <class Body>
  auto call(const std::string& operation, const std::string& subject, Body&& body) const;
  // Counts as a call that this rank refuses.
  void refuse(const std::string& operation, const std::string& reason) const noexcept;
  // Of all calls so far, in order: equal on ranks that made the same ones; below 2^63.
  uint64_t call_hash() const { return backend_->calls()->current()->hash; }

  // The group of the ranks `members`, which are ascending and have the own rank among them; there they are numbered
  // from 0 in this order. Every rank of this communicator calls it, each with the members of its own group; a rank that
  // needs none gives itself alone. A group sends through this communicator's backend, and may be split too. Throws
  // invalid_argument for other members, and communication, on all ranks and without ending anything, where the members
  // of a group do not name the same ranks. One all_gather of a byte for each rank.
  Communicator split(const std::vector<Rank>& members, const std::string& operation = "split") const;
  // The number of a rank of this communicator among all ranks: that of the communicator that is no group.
  Rank outermost(Rank rank) const { return backend_->calls()->outermost(rank); }
  const std::shared_ptr<Backend>& backend() const { return backend_; }

 private:
  // The current call has thrown.
  void fail_call(const std::string& operation, const std::string& reason) const noexcept;

  std::shared_ptr<Backend> backend_;
};

template <class Body>
auto Communicator::call(const std::string& operation, const std::string& subject, Body&& body) const {
  struct End {
    Calls& calls;
    ~End() { calls.end(); }
  };
  const bool counts = backend_->calls()->begin(operation, subject);
  const End end{*backend_->calls()};
  try {
    return body();
  } catch (const std::exception& error) {
    if (counts) fail_call(operation, error.what());
    throw;
  }
}

// Collectives, built on exchange: the same bits on every backend and every rank. Every rank calls them in the same
// order. Inputs may be strided and are not changed; results are contiguous and outside autograd. Sums have the type of
// their terms; those of bfloat16 and float16 are added in float32 and rounded once. Steps and bytes:
// src/comm/collectives.cc.

// Returns when every rank has called it.
void barrier(const Communicator& communicator, const std::string& operation = "barrier");

// The tensors of all ranks in rank order; all have one shape and type.
std::vector<at::Tensor> all_gather(const Communicator& communicator, const at::Tensor& tensor,
                                   const std::string& operation = "all_gather");

// Sends inputs[r] to rank r and fills outputs[r], contiguous, with what rank r sends here, which has as many bytes.
void all_to_all(const Communicator& communicator, const std::vector<at::Tensor>& inputs,
                const std::vector<at::Tensor>& outputs, const std::string& operation = "all_to_all");

// The sum over the ranks of their `inputs[r]`, at rank r, added in rank order: ((x0 + x1) + x2) + ...
at::Tensor reduce_scatter(const Communicator& communicator, const std::vector<at::Tensor>& inputs,
                          const std::string& operation = "reduce_scatter");

// The sum over all ranks in rank order, on every rank; the tensor is not changed.
at::Tensor all_reduce(const Communicator& communicator, const at::Tensor& tensor,
                      const std::string& operation = "all_reduce");

// Writes `tensor` of rank `root` into `tensor` on all others.
void broadcast(const Communicator& communicator, Rank root, at::Tensor tensor,
               const std::string& operation = "broadcast");

// Throws communication on every rank, naming the parts, unless every part has the same value on all ranks. One small
// all_gather.
struct ComparedValue {
  std::string name;    // "document lengths"
  uint64_t value = 0;  // a hash, or a number: one below 2^31 on both ranks is shown in the error
};
struct Comparison {
  std::string operation;         // "plan check"
  std::string things;            // that ranks hold: "plans"
  std::string remedy;            // what to do when they differ
  at::Device device = at::kCPU;  // one that the communicator has a backend for
};
void compare(const Communicator& communicator, const std::vector<ComparedValue>& parts, const Comparison& comparison);

struct CommunicatorOptions {
  std::chrono::milliseconds timeout{300'000};  // of a wait; a longer one is an error on every rank
};

// `num_ranks` communicators among the threads of this process; give one to each thread. The embedded default. Tensors
// may live on any device. A rank has ended when the last copy of its communicator is gone: whoever waits for something
// that it has not sent fails at once. Waiting takes in whatever has arrived, so a send is consumed once its receiver
// has started the receive and waits for anything.
std::vector<Communicator> make_threads_communicators(int32_t num_ranks, CommunicatorOptions options = {});

// Runs `body(communicator)` on one thread per rank and joins them. A rank has ended when its body returns. When a body
// throws, its communicator is aborted, so that the others end too; the exception that came first is rethrown here.
void run_threads(int32_t num_ranks, const std::function<void(const Communicator&)>& body,
                 CommunicatorOptions options = {});

// The process group of that name in c10d's registry, whatever its backend (Gloo, NCCL, ...), with the group's own
// ranks. Throws invalid_argument if there is none. Every member makes one, and one only; the group lives as long as it.
// Tensors need a backend for their device, so also the CPU ones of barrier: "cpu:gloo,cuda:nccl". Failures spread
// through the group's store. On streams, where `wait` does not block, a failure is thrown by the next call.
Communicator make_c10d_communicator(const std::string& group_name, CommunicatorOptions options = {});

// What a recording communicator saw leave its rank; empty tensors do not.
struct Recorded {
  struct Item {
    std::string operation;
    Rank peer;
    int64_t num_bytes = 0;
  };
  std::vector<Item> sends;
  int64_t num_exchanges = 0;  // started, with or without a send
  int64_t sent_bytes() const;
};
// Wraps another communicator and counts what it sends into `recorded`. Read it from the thread of the rank.
Communicator make_recording_communicator(Communicator inner, std::shared_ptr<Recorded> recorded);

}  // namespace evenspan::comm
