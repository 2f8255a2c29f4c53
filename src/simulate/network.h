// What of the schedules stays the same in every run: messages as flows over ways of limited bandwidth.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "evenspan/simulate/profile.h"
#include "evenspan/simulate/schedule.h"

namespace evenspan::simulate {

// All messages from one exchange to another, as one: they share the same way, and it takes longer until they begin.
struct Flow {
  int32_t from = 0;  // number of the sending exchange, over all ranks
  int32_t to = 0;    // of the receiving one
  int64_t bytes = 0;
  double latency_seconds = 0;
  std::array<int32_t, 4> ways{};  // the first `num_ways` count
  int32_t num_ways = 0;
};

// Exchanges are numbered over all ranks: those of rank r are [first_exchange[r], first_exchange[r + 1]).
struct FlowNetwork {
  FlowNetwork(const Machine& machine, std::vector<Schedule> schedules);

  std::vector<Schedule> schedules;             // [rank], with what exchanges take from compute engines
  std::vector<int32_t> first_exchange;         // [rank], and the number of exchanges
  std::vector<int32_t> rank_of_exchange;       // [exchange]
  std::vector<int32_t> step_of_exchange;       // [exchange] in its rank's schedule
  std::vector<Flow> flows;                     // by sender and receiver
  std::vector<std::vector<int32_t>> flows_of;  // [exchange] flows that begin or end there
  std::vector<int64_t> sent_bytes;             // [exchange]
  std::vector<double> way_bytes_per_second;    // [way]
  std::vector<int64_t> sent_bytes_by_level;    // [level]
  int32_t num_cores = 0;                       // that the ranks share; 0: none

 private:
  void number_exchanges();
  // What a message takes from the compute engine of one end.
  void charge(int32_t exchange, int64_t bytes, const Link& link);
  void make_flows(const Machine& machine);
};

}  // namespace evenspan::simulate
