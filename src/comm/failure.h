// The first thing that goes wrong among the ranks of a communicator, and who waits for whom: what the backends share to
// say the same on every rank.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "evenspan/comm/calls.h"
#include "evenspan/core/ids.h"

namespace evenspan::comm {

struct Failure {
  Rank rank;              // the one that aborted or noticed first
  std::string operation;  // what it was doing
  std::string reason;     // names the peer where one is to blame
};

// That a rank did not take part in a call of its own.
struct Refusal {
  Failure failure;     // of whoever waits for it
  int64_t call = 0;    // Call::number
  uint64_t group = 0;  // Call::group
};

// Throws communication with the text `[operation] rank 2 failed in "attention backward": reason`; `operation` is what
// the calling rank does. Sets `told`; where it was set, the caller goes on after an error, and the text says what to
// do.
[[noreturn]] void throw_failure(const Failure& failure, const std::string& operation, std::atomic<bool>* told);

// One transfer as seen from one of its ends. Messages of one direction between two ranks are numbered from 0.
struct TransferEnd {
  enum class Direction { send, receive };
  Direction direction = Direction::send;
  Rank peer;
  int64_t number = 0;
  int64_t num_bytes = 0;
};

// What a blocked rank waits for; never without a message.
struct Waiting {
  std::string operation;
  std::vector<TransferEnd> messages;
  Call call;  // that the messages are of
};

// What the given rank waits for; nothing when it does not wait.
using WaitingOf = std::function<std::optional<Waiting>(Rank)>;

// The reason of a time-out of `rank`: the peers that did not come, and what they and those that they wait for do, so
// that the text ends at the ranks that wait for nobody.
std::string describe_stall(Rank rank, const Waiting& waiting, std::chrono::milliseconds timeout,
                           const WaitingOf& waiting_of);

// The reason of two ends with different sizes, both named; empty when they agree or are not the same message.
std::string describe_mismatch(Rank rank, const std::string& operation, const TransferEnd& message, Rank peer,
                              const std::string& peer_operation, const TransferEnd& peer_message);

// The reason of two ranks that are in different calls, both named; empty when the hashes agree.
std::string describe_parting(Rank rank, const Call& call, Rank peer, const Call& peer_call);

// One line of text each, for a store; nothing for text that is not of this form.
std::string write_failure(const Failure& failure);
std::optional<Failure> read_failure(const std::string& text);
std::string write_refusal(const Refusal& refusal);
std::optional<Refusal> read_refusal(const std::string& text);
std::string write_waiting(const Waiting& waiting);
std::optional<Waiting> read_waiting(const std::string& text);

}  // namespace evenspan::comm
