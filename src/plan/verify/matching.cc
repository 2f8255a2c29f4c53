// Proof 3: messages pair up block for block, and no order of events can stall.
#include <algorithm>
#include <map>

#include "plan/verify/proof.h"

namespace evenspan::plan::proofs {
namespace {

struct Posted {
  const Message* message;
  Site site;
};

// Messages of one rank to another in program order.
struct Channel {
  std::vector<Posted> sends;
  std::vector<Posted> receives;
};

// What both ends must agree on. Offsets are each end's own.
bool is_same_part(const Block& a, const Block& b) {
  return a.tensor == b.tensor && a.document == b.document && a.rows == b.rows && a.heads == b.heads &&
         a.precision == b.precision;
}

void match(const Posted& send, const Posted& receive, size_t index) {
  const auto& sent = send.message->blocks;
  const auto& received = receive.message->blocks;
  const auto whom = [&] {
    return join_text("message ", index, " from rank ", send.site.rank, " (operation ", send.site.operation,
                     ") to rank ", receive.site.rank, " (operation ", receive.site.operation, ")");
  };
  for (size_t b = 0; b < std::min(sent.size(), received.size()); ++b) {
    if (is_same_part(sent[b], received[b])) continue;
    refute(Proof::matching, receive.site, whom(), ", block ", b, ": sent is ", describe(sent[b]), "; received is ",
           describe(received[b]));
  }
  if (sent.size() != received.size()) {
    refute(Proof::matching, receive.site, whom(), " is sent with ", sent.size(), " blocks and received with ",
           received.size());
  }
}

class MatchingProver {
 public:
  MatchingProver(const LoweredPlan& plan, PhaseKind phase)
      : plan_(plan), phase_(phase), num_ranks_(static_cast<int32_t>(plan.programs.size())) {}

  void prove() {
    gather();
    for (const auto& [ranks, channel] : channels_) {
      const size_t both = std::min(channel.sends.size(), channel.receives.size());
      for (size_t i = 0; i < both; ++i) match(channel.sends[i], channel.receives[i], i);
      if (channel.sends.size() == channel.receives.size()) continue;
      const bool more_sent = channel.sends.size() > both;
      const Posted& first = more_sent ? channel.sends[both] : channel.receives[both];
      refute(Proof::matching, first.site, "rank ", ranks.first, " sends ", channel.sends.size(), " messages to rank ",
             ranks.second, ", which receives ", channel.receives.size(), "; nobody ",
             more_sent ? "receives " : "sends ", describe(first.message->blocks.front()));
    }
    run();
  }

 private:
  using Ranks = std::pair<int32_t, int32_t>;  // from, to

  struct Progress {
    size_t num_sent = 0;
    size_t num_received = 0;
  };
  struct Wait {  // what an exchange needs its peer to have posted
    int32_t peer;
    const size_t* posted;
    size_t needed;
  };
  struct Runner {
    size_t operation = 0;
    std::vector<Wait> waits;  // of the exchange at `operation`, when it has started
    bool started = false;
  };

  void gather() {
    for (int32_t rank = 0; rank < num_ranks_; ++rank) {
      const auto& operations = phase_of(plan_, rank, phase_).operations;
      for (size_t i = 0; i < operations.size(); ++i) {
        const auto* exchange = std::get_if<Exchange>(&operations[i].body);
        if (!exchange) continue;
        const Site site{rank, static_cast<int32_t>(i), phase_};
        for (const Message& message : exchange->items) {
          if (message.direction == Direction::send) {
            channels_[{rank, message.peer}].sends.push_back(Posted{&message, site});
          } else {
            channels_[{message.peer, rank}].receives.push_back(Posted{&message, site});
          }
        }
      }
    }
  }

  // Runs all ranks, every exchange blocking until the other end of each of its messages has been posted.
  void run() {
    runners_.assign(static_cast<size_t>(num_ranks_), Runner{});
    std::vector<int32_t> ready;
    for (int32_t rank = num_ranks_ - 1; rank >= 0; --rank) ready.push_back(rank);
    while (!ready.empty()) {
      const int32_t rank = ready.back();
      ready.pop_back();
      advance(rank, &ready);
    }
    for (int32_t rank = 0; rank < num_ranks_; ++rank) {
      if (runners_[static_cast<size_t>(rank)].started) refute_cycle(rank);
    }
  }

  // Runs one rank until it ends or blocks. Peers of what it posts become ready.
  void advance(int32_t rank, std::vector<int32_t>* ready) {
    Runner& runner = runners_[static_cast<size_t>(rank)];
    const auto& operations = phase_of(plan_, rank, phase_).operations;
    for (; runner.operation < operations.size(); ++runner.operation) {
      const auto* exchange = std::get_if<Exchange>(&operations[runner.operation].body);
      if (!exchange) continue;
      if (!runner.started) post(rank, *exchange, &runner, ready);
      std::erase_if(runner.waits, [](const Wait& wait) { return *wait.posted >= wait.needed; });
      if (!runner.waits.empty()) return;
      runner.started = false;
    }
  }

  void post(int32_t rank, const Exchange& exchange, Runner* runner, std::vector<int32_t>* ready) {
    runner->started = true;
    for (const Message& message : exchange.items) {
      if (message.direction == Direction::send) {
        Progress& progress = progress_[{rank, message.peer}];
        runner->waits.push_back(Wait{message.peer, &progress.num_received, ++progress.num_sent});
      } else {
        Progress& progress = progress_[{message.peer, rank}];
        runner->waits.push_back(Wait{message.peer, &progress.num_sent, ++progress.num_received});
      }
      ready->push_back(message.peer);
    }
  }

  // Every blocked rank waits for a blocked rank, since all messages are matched: following them ends in a cycle.
  [[noreturn]] void refute_cycle(int32_t rank) const {
    std::vector<int32_t> path;
    auto at = path.end();
    for (; at == path.end(); at = std::find(path.begin(), path.end(), rank)) {
      path.push_back(rank);
      rank = runners_[static_cast<size_t>(rank)].waits.front().peer;
    }
    std::string cycle;
    for (; at != path.end(); ++at) {
      cycle += join_text("rank ", *at, " in operation ", runners_[static_cast<size_t>(*at)].operation, " waits for ");
    }
    const Site site{rank, static_cast<int32_t>(runners_[static_cast<size_t>(rank)].operation), phase_};
    refute(Proof::matching, site, "deadlock: ", cycle, "rank ", rank);
  }

  const LoweredPlan& plan_;
  PhaseKind phase_;
  int32_t num_ranks_;
  std::map<Ranks, Channel> channels_;
  std::map<Ranks, Progress> progress_;
  std::vector<Runner> runners_;  // [rank]
};

}  // namespace

void prove_matching(const LoweredPlan& plan) {
  for (const PhaseKind phase : phases_of(plan.request.shape)) MatchingProver(plan, phase).prove();
}

}  // namespace evenspan::plan::proofs
