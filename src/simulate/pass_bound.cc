#include "simulate/pass_bound.h"

#include <algorithm>

namespace evenspan::simulate {

PassBound::PassBound(const Machine& machine, int32_t num_rounds)
    : machine_(machine),
      num_ranks_(static_cast<size_t>(machine.topology.num_ranks)),
      rounds_(static_cast<size_t>(num_rounds) * num_ranks_),
      ranks_(num_ranks_),
      arriving_(static_cast<size_t>(num_rounds) + 1),
      leaving_(static_cast<size_t>(num_rounds) + 1) {}

void PassBound::compute(int32_t rank, int32_t round, double seconds, double held, double later) {
  rounds_[static_cast<size_t>(round) * num_ranks_ + static_cast<size_t>(rank)] = {seconds, held, later};
  add_compute(rank, seconds);
}

void PassBound::close() {
  const size_t size = 2 * machine_.links.size() * num_ranks_;
  std::vector<double> bytes(size, 0);
  for (Traffic& traffic : arriving_) traffic.close(machine_, &bytes);
  bytes.assign(size, 0);
  for (auto traffic = leaving_.rbegin(); traffic != leaving_.rend(); ++traffic) traffic->close(machine_, &bytes);
}

std::vector<double> PassBound::seconds_alone() {
  std::vector<double> seconds(num_ranks_, 0);
  run(&seconds, Others::ready);
  return seconds;
}

void PassBound::run(std::vector<double>* now, Others others) {
  std::vector<double>& starts = *now;
  arrived_ = done_ = left_ = reached_ = starts;
  leaving_[0].run(starts, others, &left_);
  for (size_t round = 0; round + 1 < arriving_.size(); ++round) {
    arriving_[round].run(starts, others, &arrived_);
    const RoundOfRank* of_rank = &rounds_[round * num_ranks_];
    for (size_t r = 0; r < num_ranks_; ++r) {
      const auto& [seconds, held, later] = of_rank[r];
      done_[r] = std::max(done_[r] + seconds, arrived_[r] + held);
      reached_[r] = done_[r] - later;
    }
    leaving_[round + 1].run(reached_, others, &left_);
  }
  arriving_.back().run(starts, others, &arrived_);
  for (size_t r = 0; r < num_ranks_; ++r) {
    starts[r] = std::max({starts[r] + ranks_[r].compute, done_[r] + ranks_[r].unpack, left_[r], arrived_[r]});
  }
}

void PassBound::Traffic::add(const Machine& machine, Rank from, Rank to, size_t level, double added) {
  const auto num_ranks = static_cast<size_t>(machine.topology.num_ranks);
  bytes.resize(2 * machine.links.size() * num_ranks, 0);
  bytes[2 * level * num_ranks + static_cast<size_t>(from.value)] += added;
  bytes[(2 * level + 1) * num_ranks + static_cast<size_t>(to.value)] += added;
  const Link& link = machine.links[level];
  flows.push_back({from.value, to.value, link.latency_seconds + added / link.bytes_per_second});
}

void PassBound::Traffic::close(const Machine& machine, std::vector<double>* all_bytes) {
  if (flows.empty()) return;
  const auto num_ranks = static_cast<size_t>(machine.topology.num_ranks);
  for (size_t i = 0; i < bytes.size(); ++i) (*all_bytes)[i] += bytes[i];
  for (size_t r = 0; r < num_ranks; ++r) {
    double seconds = 0;
    for (size_t way = 0; way < 2 * machine.links.size(); ++way) {
      const Link& link = machine.links[way / 2];
      if (bytes[way * num_ranks + r] == 0) continue;
      seconds = std::max(seconds, link.latency_seconds + (*all_bytes)[way * num_ranks + r] / link.bytes_per_second);
    }
    if (seconds > 0) whole.emplace_back(static_cast<int32_t>(r), seconds);
  }
  bytes = {};
}

void PassBound::Traffic::run(const std::vector<double>& ready, Others others, std::vector<double>* end) const {
  std::vector<double>& ends = *end;
  for (const auto& [rank, seconds] : whole) {
    const auto r = static_cast<size_t>(rank);
    ends[r] = std::max(ends[r], ready[r] + seconds);
  }
  if (others == Others::ready) return;
  for (const Flow& flow : flows) {
    const auto from = static_cast<size_t>(flow.from), to = static_cast<size_t>(flow.to);
    ends[from] = std::max(ends[from], ready[to] + flow.seconds);
    ends[to] = std::max(ends[to], ready[from] + flow.seconds);
  }
}

}  // namespace evenspan::simulate
