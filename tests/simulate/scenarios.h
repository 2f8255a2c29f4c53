// Schedules, machines and profiles small enough to compute their times by hand.
#pragma once

#include <utility>
#include <vector>

#include "evenspan/simulate/prediction.h"
#include "evenspan/simulate/simulator.h"

namespace evenspan::test {

// Writes the schedule of one rank.
class ScheduleWriter {
 public:
  ScheduleWriter& compute(double seconds, std::vector<int32_t> waits = {}) {
    schedule_.steps.push_back({plan::Attend::kTraits.name, seconds, -1, std::move(waits), 0});
    return *this;
  }
  // (peer, bytes) of what is sent and received.
  ScheduleWriter& exchange(const std::vector<std::pair<int, int64_t>>& sends,
                           const std::vector<std::pair<int, int64_t>>& receives, std::vector<int32_t> waits = {}) {
    const auto number = static_cast<int32_t>(schedule_.exchanges.size());
    schedule_.steps.push_back({plan::Exchange::kTraits.name, 0, number, std::move(waits), 0});
    schedule_.exchanges.push_back({transfers(sends), transfers(receives)});
    return *this;
  }
  operator simulate::Schedule() const { return schedule_; }  // NOLINT: reads as the schedule that it is

 private:
  static std::vector<simulate::MessageBytes> transfers(const std::vector<std::pair<int, int64_t>>& list) {
    std::vector<simulate::MessageBytes> all;
    for (const auto& [peer, bytes] : list) all.push_back({Rank(peer), bytes});
    return all;
  }
  simulate::Schedule schedule_;
};

// Nodes of `ranks_per_node` with these links; one node if it holds all ranks.
inline simulate::Machine machine_of(int32_t num_ranks, int32_t ranks_per_node,
                                    const std::vector<simulate::Link>& links) {
  simulate::Machine machine;
  machine.topology = plan::make_topology(num_ranks, ranks_per_node);
  for (size_t level = 0; level < machine.topology.levels.size(); ++level) {
    machine.topology.levels[level].latency_seconds = links[level].latency_seconds;
    machine.topology.levels[level].bytes_per_second = links[level].bytes_per_second;
    machine.links.push_back(links[level]);
  }
  return machine;
}

// 1 s for 1000 pairs of a head in forward, 3 s in backward; memory 1000 bytes a second; token-wise 1e9 operations a
// second; links of 1 s and 100 bytes a second, between nodes 2 s, 50 bytes a second and a card of 50.
inline simulate::Profile simple_profile() {
  simulate::Profile profile;
  profile.name = "simple";
  simulate::AttentionTimes times;
  times.head_dim = 8;
  times.elements = {plan::ElementType::bf16};
  times.queries = {10};
  times.keys = {100};
  times.forward.seconds = {1};
  times.backward.seconds = {3};
  profile.attention = {times};
  profile.memory_bytes_per_second = 1000;
  profile.forward_flops_per_second = profile.backward_flops_per_second = 1e9;
  profile.ranks_per_node = 2;
  profile.links = {{1, 100, 0, 0}, {2, 50, 1, 50}};
  return profile;
}

// Nodes of 4 ranks on which neither computing nor transfers vanish, with this link between nodes.
inline simulate::Scenario scenario_of(int32_t num_ranks, const simulate::Link& between_nodes) {
  simulate::Scenario scenario;
  simulate::Profile& profile = scenario.profile;
  profile = simple_profile();
  profile.attention[0].forward.seconds = {1e-6};
  profile.attention[0].backward.seconds = {3e-6};
  profile.memory_bytes_per_second = 1e13;
  profile.forward_flops_per_second = profile.backward_flops_per_second = 1e12;
  profile.ranks_per_node = 4;
  profile.links = {{1e-6, 1e10, 0, 0}, between_nodes};
  scenario.machine = simulate::make_machine(profile, num_ranks, 0);
  scenario.model.shape = {16, 4, 8, plan::ElementType::bf16};
  scenario.model.num_layers = 4;
  scenario.model.hidden = 64;
  scenario.model.intermediate = 128;
  scenario.model.vocabulary = 0;
  return scenario;
}

}  // namespace evenspan::test
