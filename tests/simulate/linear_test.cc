// Hybrid models: linear layers beside softmax layers, on the placement of one plan.
#include "evenspan/plan/linear.h"

#include <cmath>

#include "evenspan/core/error.h"
#include "evenspan/simulate/bound.h"
#include "evenspan/simulate/choose.h"
#include "evenspan/simulate/prediction.h"
#include "gtest/gtest.h"
#include "simulate/draft_bound.h"
#include "simulate/scenarios.h"

namespace evenspan::simulate {
namespace {

plan::AttentionShape linear_shape(plan::Gate gate, bool delta_rule) {
  plan::AttentionShape shape{16, 16, 128, plan::ElementType::bf16, {}};
  shape.state = {128, gate, delta_rule, false, false};
  return shape;
}

// Rates of the order of an H100 node of 8 with a card for each rank; four softmax layers.
Scenario gpu_scenario(int32_t num_ranks) {
  Scenario scenario = test::scenario_of(num_ranks, {1e-4, 4e10, 8, 4e10});
  Profile& profile = scenario.profile;
  profile.attention[0].head_dim = 128;
  profile.attention[0].queries = profile.attention[0].keys = {128};
  profile.attention[0].forward.seconds = {1.3e-8};
  profile.attention[0].backward.seconds = {3.6e-8};
  profile.memory_bytes_per_second = 2.7e12;
  profile.memory_operation_seconds = 5e-6;
  profile.forward_flops_per_second = profile.backward_flops_per_second = 6e14;
  profile.ranks_per_node = 8;
  profile.links = {{1e-5, 2.9e11, 0, 0}, {1e-4, 4e10, 8, 4e10}};
  scenario.machine = make_machine(profile, num_ranks, 0);
  scenario.model = Model();
  scenario.model.num_layers = 4;
  return scenario;
}

Scenario hybrid(int32_t num_ranks, int32_t num_linear, const std::string& transport = "all_gather") {
  Scenario scenario = gpu_scenario(num_ranks);
  scenario.model.linear = {{num_linear, linear_shape(plan::Gate::none, true)}};
  scenario.model.states.transport = transport;
  return scenario;
}

plan::Request request_for(const Scenario& scenario, std::vector<int64_t> lengths, const std::string& strategy) {
  plan::Request request;
  request.documents = plan::Documents(lengths, plan::Mask{});
  request.shape = scenario.model.shape;
  request.topology = scenario.machine.topology;
  request.cost = cost_model(scenario.profile, scenario.model);
  request.options.strategy = strategy;
  return request;
}

TEST(HybridModel, StepsAreAboveTheirBounds) {
  for (const int32_t num_linear : {1, 2, 4}) {
    for (const plan::TransportInfo& transport : plan::transports()) {
      const Scenario scenario = hybrid(16, num_linear, std::string(transport.name));
      for (const char* strategy : {"mixed", "sequence_aware", "zigzag"}) {
        const auto plan = plan::make_plan(request_for(scenario, {60000, 9000, 500, 500, 20000}, strategy));
        const Prediction prediction = predict(*plan, scenario);
        EXPECT_GT(prediction.step_seconds, step_lower_bound(plan->request, scenario));
        EXPECT_LE(bound_of_plan(*plan, scenario, HUGE_VAL), prediction.step_seconds * (1 + 1e-12));
        ASSERT_EQ(prediction.linear.size(), 1u);
        EXPECT_GT(prediction.linear[0].forward.makespan_seconds, 0);
      }
    }
  }
}

TEST(HybridModel, LinearLayersTakeTheirPairsFromThePlanner) {
  const Scenario softmax = gpu_scenario(8), half = hybrid(8, softmax.model.num_layers / 2);
  EXPECT_DOUBLE_EQ(cost_model(half.profile, half.model).pair_seconds,
                   cost_model(softmax.profile, softmax.model).pair_seconds / 2);
  EXPECT_GT(cost_model(half.profile, half.model).token_seconds,
            cost_model(softmax.profile, softmax.model).token_seconds);
}

TEST(HybridModel, StatesSendWhatTheFormulaSays) {
  const Scenario scenario = hybrid(16, 2, "two_level");
  const auto plan = plan::make_plan(request_for(scenario, {60000, 9000}, "zigzag"));
  const Prediction prediction = predict(*plan, scenario);
  int64_t bytes = 0;
  for (const int64_t level : prediction.linear[0].forward.sent_bytes_by_level) bytes += level;
  const plan::AttentionShape& shape = scenario.model.linear[0].shape;
  EXPECT_EQ(bytes, plan::forward_traffic(*plan, shape, scenario.model.states).bytes(shape));
}

TEST(HybridModel, AutoWeighsBoth) {
  const Scenario scenario = hybrid(16, 3);
  const plan::Request request = request_for(scenario, {60000, 9000, 500, 500, 20000}, "auto");
  const Choice choice = choose(request, scenario);
  for (const char* strategy : {"zigzag", "ring", "ulysses", "all_gather"}) {
    const auto plan = plan::make_plan(request_for(scenario, {60000, 9000, 500, 500, 20000}, strategy));
    EXPECT_LE(choice.prediction.step_seconds, predict(*plan, scenario).step_seconds) << strategy;
  }
}

double forward_seconds(Scenario scenario, const char* transport) {
  scenario.model.linear = {{1, linear_shape(plan::Gate::token, false)}};
  scenario.model.states.transport = transport;
  const int64_t tokens = int64_t{32768} * scenario.machine.topology.num_ranks;
  return predict(*plan::make_plan(request_for(scenario, {tokens}, "all_gather")), scenario)
      .linear[0]
      .forward.makespan_seconds;
}

// LASP-2 over LASP (arXiv 2502.07563), one document of 2M tokens on 64 ranks: the chain has 63 dependent steps.
TEST(LinearLayer, TheGatherIsFasterThanTheChain) {
  EXPECT_LT(forward_seconds(gpu_scenario(64), "all_gather"), forward_seconds(gpu_scenario(64), "ring"));
}

// ZeCO (arXiv 2507.01004): where a state takes longer to send than a message to arrive, blocks shorten the chain, and
// the gather, whose bytes grow with the ranks, loses to them.
TEST(LinearLayer, BlocksAreFasterThanBothOnFastLinks) {
  Scenario scenario = gpu_scenario(64);
  scenario.profile.links = {{4e-6, 3.2e10, 0, 0}};
  scenario.profile.ranks_per_node = 64;
  scenario.machine = make_machine(scenario.profile, 64, 64);
  const double pipelined = forward_seconds(scenario, "pipelined");
  EXPECT_LT(pipelined, forward_seconds(scenario, "ring"));
  EXPECT_LT(pipelined, forward_seconds(scenario, "all_gather"));
}

TEST(HybridModel, MoreLinearLayersThanLayersAreRefused) {
  Scenario scenario = hybrid(8, 1);
  scenario.model.linear[0].count = scenario.model.num_layers + 1;
  EXPECT_THROW(validate(scenario.model), Error);
}

}  // namespace
}  // namespace evenspan::simulate
