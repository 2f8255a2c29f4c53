// The machine that benchmarks, and the tests of what they promise, simulate.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "evenspan/simulate/prediction.h"

namespace evenspan::bench {

// The shape of the shipped profile h100-sxm, with one rate for all kernels: reading JSON is not the library's.
inline simulate::Scenario h100_scenario(int32_t num_ranks) {
  simulate::Scenario scenario;
  simulate::Profile& profile = scenario.profile;
  profile.name = "bench";
  simulate::AttentionTimes times;
  times.head_dim = 128;
  times.elements = {plan::ElementType::bf16};
  times.tile = 128;
  times.queries = times.keys = {128, 131072};  // a start of each block and so much a key
  times.forward = {2.45e-5, 0, {1.292e-7, 2.514e-5, 1.323e-4, 2.574e-2}};
  times.backward = {2.45e-5, 0, {3.603e-7, 7.011e-5, 3.690e-4, 7.179e-2}};
  profile.attention = {times};
  profile.memory_bytes_per_second = 2.68e12;
  profile.memory_operation_seconds = 5e-6;
  profile.forward_flops_per_second = profile.backward_flops_per_second = 5.93e14;
  profile.ranks_per_node = 8;
  profile.links = {{9.1e-6, 2.929e11, 0, 0}, {9.715e-5, 3.88e10, 8, 3.88e10}};
  scenario.machine = simulate::make_machine(profile, num_ranks, 0);
  return scenario;
}

inline plan::Request request_for(const simulate::Scenario& scenario, const std::string& strategy,
                                 const std::vector<int64_t>& lengths) {
  plan::Request request;
  request.documents = plan::Documents(lengths, plan::Mask{});
  request.shape = scenario.model.shape;
  request.topology = scenario.machine.topology;
  request.cost = simulate::cost_model(scenario.profile, scenario.model);
  request.options.strategy = strategy;
  return request;
}

}  // namespace evenspan::bench
