// The parts of a step add up to it, and documents are told apart by what was done with them.
#include "evenspan/simulate/explain.h"

#include <gtest/gtest.h>

#include "scenarios.h"

namespace evenspan::simulate {
namespace {

// Nothing takes time but attention and transfers between two nodes of one rank each.
Scenario two_nodes() {
  Scenario scenario;
  scenario.profile = test::simple_profile();
  scenario.profile.memory_bytes_per_second = 1e30;
  scenario.profile.forward_flops_per_second = scenario.profile.backward_flops_per_second = 1e30;
  scenario.profile.ranks_per_node = 1;
  scenario.machine = make_machine(scenario.profile, 2, 0);
  scenario.model.shape = {2, 1, 8, plan::ElementType::bf16};
  scenario.model.num_layers = 3;
  return scenario;
}

Explanation explained(const Scenario& scenario, const std::vector<int64_t>& lengths, const std::string& strategy,
                      plan::MaskKind mask) {
  plan::Request request;
  request.documents = plan::Documents(lengths, plan::Mask{mask, 0});
  request.shape = scenario.model.shape;
  request.topology = scenario.machine.topology;
  request.cost = cost_model(scenario.profile, scenario.model);
  request.options.strategy = strategy;
  return explain(*plan::make_plan(request), scenario);
}

double sum(const StepParts& step) {
  return step.lower_bound_seconds + step.kernel_seconds + step.launch_seconds + step.copy_seconds +
         step.message_seconds + step.imbalance_seconds + step.exposed_seconds;
}

// 100 x 100 pairs of 2 heads take 2 x 10 s forward and 2 x 30 s backward in each of 3 layers, all on one of two ranks.
TEST(Explain, AnIdleRankIsImbalance) {
  const Explanation e = explained(two_nodes(), {100}, "local", plan::MaskKind::full);
  EXPECT_NEAR(e.step.step_seconds, 240, 1e-9);
  EXPECT_NEAR(e.step.lower_bound_seconds, 120, 1e-9);
  EXPECT_NEAR(e.step.imbalance_seconds, 120, 1e-9);
  EXPECT_NEAR(e.step.kernel_seconds, 0, 1e-9);
  EXPECT_NEAR(e.step.launch_seconds, 0, 1e-9);
  EXPECT_NEAR(e.step.exposed_seconds, 0, 1e-9);
  EXPECT_EQ(e.busiest.num_tokens, 100);
  EXPECT_NEAR(e.busiest.attention_seconds, 240, 1e-9);
  EXPECT_EQ(e.busiest.wait_seconds_by_level, (std::vector<double>{0, 0}));
  ASSERT_EQ(e.groups.size(), 1u);
  EXPECT_EQ(e.groups[0].spread, Spread::whole);
  EXPECT_EQ(e.groups[0].reason, Reason::fits);
  EXPECT_NEAR(e.groups[0].most_ranks, 2, 1e-6);  // twice the mean work
  EXPECT_EQ(e.sent_bytes, 0);
}

// Launches of 5 s for an operation and 1 s for a segment: one of each, forward and backward, in 3 layers.
TEST(Explain, LaunchesAreTheMeanOfTheRanks) {
  Scenario scenario = two_nodes();
  for (PassTimes* times : {&scenario.profile.attention[0].forward, &scenario.profile.attention[0].backward}) {
    times->operation_seconds = 5;
    times->segment_seconds = 1;
  }
  const Explanation e = explained(scenario, {100}, "local", plan::MaskKind::full);
  EXPECT_NEAR(e.step.step_seconds, 240 + 3 * 2 * 6, 1e-9);
  EXPECT_NEAR(e.step.launch_seconds, 3 * 2 * 6 / 2.0, 1e-9);
  EXPECT_NEAR(e.step.imbalance_seconds, 120 + 3 * 2 * 6 / 2.0, 1e-9);
  EXPECT_NEAR(sum(e.step), e.step.step_seconds, 1e-9);
}

// Keys and values of 50 tokens, 2 x 50 x 8 x 2 bytes, cross between the nodes each way.
TEST(Explain, TransfersBetweenNodesAreWaitedFor) {
  const Explanation e = explained(two_nodes(), {100}, "ring", plan::MaskKind::full);
  ASSERT_EQ(e.groups.size(), 1u);
  EXPECT_EQ(e.groups[0].spread, Spread::cut);
  EXPECT_EQ(e.groups[0].reason, Reason::strategy);
  EXPECT_EQ(e.groups[0].num_ranks, 2);
  EXPECT_EQ(e.groups[0].num_nodes, 2);
  EXPECT_EQ(e.groups[0].sent_bytes, 2 * 1600);
  EXPECT_EQ(e.key_value_bytes, 2 * 1600);
  EXPECT_NEAR(e.step.imbalance_seconds, 0, 1e-9);
  EXPECT_GT(e.step.exposed_seconds, 0);
  EXPECT_NEAR(sum(e.step), e.step.step_seconds, 1e-9);
  EXPECT_EQ(e.busiest.wait_seconds_by_level[0], 0);
  // Ranks are alike and never drift, so every layer waits as long as the one that was looked at.
  EXPECT_NEAR(3 * e.busiest.wait_seconds_by_level[1], e.step.exposed_seconds, 1e-6);
}

TEST(Explain, MessagesThatProcessorsMoveAreNoWaiting) {
  Scenario scenario = two_nodes();
  const Explanation free = explained(scenario, {100}, "ring", plan::MaskKind::full);
  EXPECT_EQ(free.step.message_seconds, 0);
  std::vector<double> seconds;
  for (const double byte_seconds : {1e-9, 2e-9}) {
    scenario.machine.links[1].compute_byte_seconds = byte_seconds;
    const Explanation e = explained(scenario, {100}, "ring", plan::MaskKind::full);
    // In each layer's forward a rank sends 1,600 bytes and receives as many; backward moves more.
    EXPECT_GT(e.step.message_seconds, 3 * 3200 * byte_seconds);
    EXPECT_EQ(e.busiest.message_seconds, e.step.message_seconds);
    EXPECT_NEAR(sum(e.step), e.step.step_seconds, 1e-9);
    seconds.push_back(e.step.message_seconds);
  }
  EXPECT_NEAR(seconds[1] / seconds[0], 2, 1e-9);
}

TEST(Explain, DocumentsAreGroupedByWhatWasDoneAndWhy) {
  const Scenario scenario = test::scenario_of(8, {2e-6, 1e9, 0, 0});
  std::vector<int64_t> lengths(40, 60);
  lengths.push_back(4000);
  const Explanation e = explained(scenario, lengths, "sequence_aware", plan::MaskKind::causal);
  int64_t documents = 0, tokens = 0, bytes = 0, long_ones = 0;
  for (const DocumentGroup& group : e.groups) {
    documents += group.num_documents;
    tokens += group.num_tokens;
    bytes += group.sent_bytes;
    EXPECT_LE(group.shortest, group.longest);
    EXPECT_EQ(group.spread == Spread::whole, group.num_ranks == 1);
    if (group.longest < 4000) continue;
    ++long_ones;
    EXPECT_EQ(group.reason, Reason::work);
    EXPECT_EQ(group.num_nodes, 2);
    EXPECT_EQ(group.first, DocumentId(40));
  }
  EXPECT_EQ(long_ones, 1);
  EXPECT_EQ(documents, 41);
  EXPECT_EQ(tokens, 6400);
  EXPECT_EQ(bytes, e.sent_bytes);
  EXPECT_EQ(e.bound.binding, plan::Binding::work);
}

TEST(Explain, PartsAddUpForEveryKindOfPlan) {
  for (const char* strategy : {"local", "zigzag", "all_gather", "ulysses", "usp", "sequence_aware", "hierarchical"}) {
    for (const double between_nodes : {1e8, 4e9}) {
      const Scenario scenario = test::scenario_of(8, {2e-6, between_nodes, 0, 0});
      const Explanation e = explained(scenario, {5000, 900, 333, 70, 70}, strategy, plan::MaskKind::causal);
      EXPECT_NEAR(sum(e.step) / e.step.step_seconds, 1, 1e-9) << strategy;
      for (const double part : {e.step.kernel_seconds, e.step.launch_seconds, e.step.copy_seconds,
                                e.step.message_seconds, e.step.imbalance_seconds, e.step.exposed_seconds}) {
        EXPECT_GE(part, -1e-12) << strategy;
      }
      EXPECT_NEAR(
          e.busiest.attention_seconds + e.busiest.copy_seconds + e.busiest.message_seconds + e.busiest.token_seconds,
          e.step.step_seconds - e.step.exposed_seconds, 1e-9)
          << strategy;
    }
  }
}

}  // namespace
}  // namespace evenspan::simulate
