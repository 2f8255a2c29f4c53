#include "comm/failure.h"

#include <algorithm>
#include <deque>
#include <set>
#include <sstream>

#include "evenspan/core/error.h"

namespace evenspan::comm {
namespace {

// A text travels as its length, a colon and itself.
void write_text(std::ostream& out, const std::string& text) { out << text.size() << ':' << text << ' '; }

bool read_text(std::istream& in, std::string& text) {
  size_t length = 0;
  char colon = 0;
  if (!(in >> length) || !in.get(colon) || colon != ':' || length > 1'000'000) return false;
  text.resize(length);
  return static_cast<bool>(in.read(text.data(), static_cast<std::streamsize>(length)));
}

void write_failure(std::ostream& out, const Failure& failure) {
  out << failure.rank << ' ';
  write_text(out, failure.operation);
  write_text(out, failure.reason);
}

bool read_failure(std::istream& in, Failure& failure) {
  return static_cast<bool>(in >> failure.rank.value) && read_text(in, failure.operation) &&
         read_text(in, failure.reason);
}

std::string ranks_text(const std::set<Rank>& ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  const char* separator = "";
  for (Rank rank : ranks) {
    text += join_text(separator, rank);
    separator = ", ";
  }
  return text;
}

std::set<Rank> peers_of(const Waiting& waiting) {
  std::set<Rank> peers;
  for (const TransferEnd& message : waiting.messages) peers.insert(message.peer);
  return peers;
}

}  // namespace

void throw_failure(const Failure& failure, const std::string& operation, std::atomic<bool>* told) {
  const char* remedy =
      told->exchange(true) ? "; the group ended with that, before this call: end all ranks and start them anew" : "";
  fail(ErrorKind::communication, "[", operation, "] rank ", failure.rank, " failed in \"", failure.operation,
       "\": ", failure.reason, remedy);
}

std::string describe_stall(Rank rank, const Waiting& waiting, std::chrono::milliseconds timeout,
                           const WaitingOf& waiting_of) {
  const std::set<Rank> absent = peers_of(waiting);
  std::string text = join_text(ranks_text(absent), " did not come within ", timeout.count(), " ms");
  std::deque<Rank> open(absent.begin(), absent.end());
  std::set<Rank> seen = absent;
  std::set<Rank> idle;
  seen.insert(rank);
  while (!open.empty()) {
    const Rank next = open.front();
    open.pop_front();
    const std::optional<Waiting> theirs = waiting_of(next);
    if (!theirs) {
      idle.insert(next);
      continue;
    }
    const std::set<Rank> peers = peers_of(*theirs);
    text += join_text("; rank ", next, " waits for ", ranks_text(peers), " in \"", theirs->operation, "\"");
    for (Rank peer : peers) {
      if (seen.insert(peer).second) open.push_back(peer);
    }
  }
  if (idle.empty()) return text + "; they wait for each other: compare what these ranks do, and look for one that died";
  return text + "; " + ranks_text(idle) + (idle.size() == 1 ? " waits" : " wait") +
         " for nobody: look there for a stall, or raise the time-out";
}

std::string describe_mismatch(Rank rank, const std::string& operation, const TransferEnd& message, Rank peer,
                              const std::string& peer_operation, const TransferEnd& peer_message) {
  const bool same_message = message.peer == peer && peer_message.peer == rank &&
                            message.direction != peer_message.direction && message.number == peer_message.number;
  if (!same_message || message.num_bytes == peer_message.num_bytes) return {};
  const auto end = [](Rank r, const std::string& where, const TransferEnd& m) {
    return join_text("rank ", r, m.direction == TransferEnd::Direction::send ? " sends " : " receives ", m.num_bytes,
                     " bytes in \"", where, "\"");
  };
  return join_text("both ends of a message have one size, but ", end(rank, operation, message), " and ",
                   end(peer, peer_operation, peer_message), "; give the same sizes at both ends");
}

std::string describe_parting(Rank rank, const Call& call, Rank peer, const Call& peer_call) {
  if (call.hash == peer_call.hash) return {};
  const bool by_rank = rank < peer;
  const Call& first = by_rank ? call : peer_call;
  const Call& second = by_rank ? peer_call : call;
  const bool look_alike = to_string(first) == to_string(second);
  return join_text("all ranks make the same calls in the same order, but rank ", std::min(rank, peer), " made ",
                   to_string(first), ", where rank ", std::max(rank, peer), " made ", to_string(second),
                   look_alike ? ", after other calls" : "",
                   "; look for a layer, batch or collective that one of them leaves out, repeats or calls earlier");
}

std::string write_failure(const Failure& failure) {
  std::ostringstream out;
  write_failure(out, failure);
  return out.str();
}

std::optional<Failure> read_failure(const std::string& text) {
  std::istringstream in(text);
  Failure failure;
  if (!read_failure(in, failure)) return {};
  return failure;
}

std::string write_refusal(const Refusal& refusal) {
  std::ostringstream out;
  out << refusal.call << ' ' << refusal.group << ' ';
  write_failure(out, refusal.failure);
  return out.str();
}

std::optional<Refusal> read_refusal(const std::string& text) {
  std::istringstream in(text);
  Refusal refusal;
  if (!(in >> refusal.call >> refusal.group) || !read_failure(in, refusal.failure)) return {};
  return refusal;
}

std::string write_waiting(const Waiting& waiting) {
  std::ostringstream out;
  out << waiting.call.number << ' ' << waiting.call.hash << ' ' << waiting.call.group << ' ';
  write_text(out, waiting.call.members);
  write_text(out, waiting.call.operation);
  write_text(out, waiting.call.subject);
  write_text(out, waiting.operation);
  out << waiting.messages.size();
  for (const TransferEnd& message : waiting.messages) {
    out << (message.direction == TransferEnd::Direction::send ? " s " : " r ") << message.peer << ' ' << message.number
        << ' ' << message.num_bytes;
  }
  return out.str();
}

std::optional<Waiting> read_waiting(const std::string& text) {
  std::istringstream in(text);
  Waiting waiting;
  size_t num_messages = 0;
  Call& call = waiting.call;
  if (!(in >> call.number >> call.hash >> call.group) || !read_text(in, call.members) ||
      !read_text(in, call.operation) || !read_text(in, call.subject) || !read_text(in, waiting.operation) ||
      !(in >> num_messages)) {
    return {};
  }
  for (size_t i = 0; i < num_messages; ++i) {
    char direction = 0;
    TransferEnd message;
    if (!(in >> direction >> message.peer.value >> message.number >> message.num_bytes)) return {};
    message.direction = direction == 's' ? TransferEnd::Direction::send : TransferEnd::Direction::receive;
    waiting.messages.push_back(message);
  }
  if (waiting.messages.empty()) return {};
  return waiting;
}

}  // namespace evenspan::comm
