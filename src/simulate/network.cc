#include "simulate/network.h"

#include <algorithm>
#include <tuple>

#include "evenspan/core/error.h"

namespace evenspan::simulate {
namespace {

// One end of a message. Messages between two ranks match in program order, which numbers of exchanges keep.
struct End {
  int32_t from, to;  // ranks
  int32_t exchange;
  int64_t bytes;
  bool same_pair(const End& other) const { return from == other.from && to == other.to; }
};

void sort(std::vector<End>* ends) {
  std::stable_sort(ends->begin(), ends->end(),
                   [](const End& a, const End& b) { return std::tie(a.from, a.to) < std::tie(b.from, b.to); });
}

[[noreturn]] void refuse_pair(const End& end, const char* what) {
  fail_invalid("[simulate] rank ", end.from, what, " rank ", end.to, " a message of ", end.bytes,
               " bytes that the other end does not have; `evenspan verify` says what is wrong with the plan");
}

// The ways of a machine, numbered level by level: out of ranks, into ranks, out through cards, in through cards.
class Ways {
 public:
  explicit Ways(const Machine& machine) : machine_(machine) {
    const auto& levels = machine.topology.levels;
    const int32_t num_ranks = machine.topology.num_ranks;
    for (size_t l = 0; l < levels.size(); ++l) {
      first_.push_back(static_cast<int32_t>(capacities_.size()));
      const Link& link = machine.links[l];
      capacities_.insert(capacities_.end(), static_cast<size_t>(2) * num_ranks, link.bytes_per_second);
      const int32_t inside = inside_size(l);
      const int32_t num_groups = (num_ranks + inside - 1) / inside;
      capacities_.insert(capacities_.end(), static_cast<size_t>(2) * num_groups * num_cards(l),
                         link.card_bytes_per_second);
    }
  }

  void use(size_t level, int32_t from, int32_t to, Flow* flow) const {
    const Link& link = machine_.links[level];
    const int32_t num_ranks = machine_.topology.num_ranks;
    const int32_t first = first_[level];
    flow->latency_seconds = link.latency_seconds;
    flow->ways = {first + from, first + num_ranks + to, 0, 0};
    flow->num_ways = 2;
    // A card for each rank, at least as fast, never holds a message up.
    if (link.cards == 0 || (link.cards >= inside_size(level) && link.card_bytes_per_second >= link.bytes_per_second)) {
      return;
    }
    const int32_t num_groups = (num_ranks + inside_size(level) - 1) / inside_size(level);
    const int32_t first_card = first + 2 * num_ranks;
    flow->ways[2] = first_card + card_of(level, from);
    flow->ways[3] = first_card + num_groups * num_cards(level) + card_of(level, to);
    flow->num_ways = 4;
  }

  std::vector<double> take_capacities() { return std::move(capacities_); }

 private:
  int32_t inside_size(size_t level) const { return level == 0 ? 1 : machine_.topology.levels[level - 1].group_size; }
  // Of a group: no more than its ranks use.
  int32_t num_cards(size_t level) const { return std::min(machine_.links[level].cards, inside_size(level)); }
  int32_t card_of(size_t level, int32_t rank) const {
    const int32_t cards = num_cards(level);
    const int32_t inside = inside_size(level);
    return rank / inside * cards + static_cast<int32_t>(int64_t{rank % inside} * cards / inside);
  }

  const Machine& machine_;
  std::vector<int32_t> first_;      // [level]
  std::vector<double> capacities_;  // [way]
};

}  // namespace

FlowNetwork::FlowNetwork(const Machine& machine, std::vector<Schedule> of_ranks) : schedules(std::move(of_ranks)) {
  validate(machine);
  EVENSPAN_CHECK_EQ(schedules.size(), static_cast<size_t>(machine.topology.num_ranks));
  number_exchanges();
  make_flows(machine);
  if (machine.shares_cores()) num_cores = machine.num_cores;
}

void FlowNetwork::number_exchanges() {
  first_exchange.push_back(0);
  for (size_t r = 0; r < schedules.size(); ++r) {
    const auto& exchanges = schedules[r].exchanges;
    rank_of_exchange.insert(rank_of_exchange.end(), exchanges.size(), static_cast<int32_t>(r));
    first_exchange.push_back(static_cast<int32_t>(rank_of_exchange.size()));
    for (const ExchangeTraffic& exchange : exchanges) {
      int64_t bytes = 0;
      for (const MessageBytes& transfer : exchange.sends) bytes += transfer.bytes;
      sent_bytes.push_back(bytes);
    }
    const auto& steps = schedules[r].steps;
    for (size_t i = 0; i < steps.size(); ++i) {
      if (steps[i].exchange >= 0) step_of_exchange.push_back(static_cast<int32_t>(i));
    }
  }
  EVENSPAN_CHECK_EQ(step_of_exchange.size(), rank_of_exchange.size());
}

void FlowNetwork::charge(int32_t exchange, int64_t bytes, const Link& link) {
  const auto at = static_cast<size_t>(exchange);
  Schedule& schedule = schedules[static_cast<size_t>(rank_of_exchange[at])];
  schedule.steps[static_cast<size_t>(step_of_exchange[at])].seconds +=
      link.compute_message_seconds + link.compute_byte_seconds * static_cast<double>(bytes);
}

void FlowNetwork::make_flows(const Machine& machine) {
  std::vector<End> sends, receives;
  for (size_t r = 0; r < schedules.size(); ++r) {
    const auto rank = static_cast<int32_t>(r);
    int32_t number = first_exchange[r];
    for (const ExchangeTraffic& exchange : schedules[r].exchanges) {
      for (const MessageBytes& t : exchange.sends) sends.push_back(End{rank, t.peer.value, number, t.bytes});
      for (const MessageBytes& t : exchange.receives) receives.push_back(End{t.peer.value, rank, number, t.bytes});
      ++number;
    }
  }
  sort(&sends);
  sort(&receives);

  Ways ways(machine);
  flows_of.resize(rank_of_exchange.size());
  sent_bytes_by_level.assign(machine.topology.levels.size(), 0);
  for (size_t i = 0; i < std::max(sends.size(), receives.size()); ++i) {
    if (i >= receives.size()) refuse_pair(sends[i], " sends to");
    if (i >= sends.size()) refuse_pair(receives[i], " shall send to");
    const End& send = sends[i];
    const End& receive = receives[i];
    if (!send.same_pair(receive) || send.bytes != receive.bytes) refuse_pair(send, " sends to");
    const size_t level = machine.topology.level_between(Rank(send.from), Rank(send.to));
    sent_bytes_by_level[level] += send.bytes;
    charge(send.exchange, send.bytes, machine.links[level]);
    charge(receive.exchange, receive.bytes, machine.links[level]);
    if (!flows.empty() && flows.back().from == send.exchange && flows.back().to == receive.exchange) {
      flows.back().bytes += send.bytes;
      flows.back().latency_seconds += machine.links[level].message_seconds;
      continue;
    }
    Flow flow;
    flow.from = send.exchange;
    flow.to = receive.exchange;
    flow.bytes = send.bytes;
    ways.use(level, send.from, send.to, &flow);
    flows_of[static_cast<size_t>(flow.from)].push_back(static_cast<int32_t>(flows.size()));
    flows_of[static_cast<size_t>(flow.to)].push_back(static_cast<int32_t>(flows.size()));
    flows.push_back(flow);
  }
  way_bytes_per_second = ways.take_capacities();
}

}  // namespace evenspan::simulate
