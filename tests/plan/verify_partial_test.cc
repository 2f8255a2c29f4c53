// All proofs on partial outputs that travel.
#include "support/partial_plan_by_hand.h"

namespace evenspan {
namespace {

using namespace plan;  // NOLINT
using test::body;
using test::expect_proven;
using test::expect_refuted;
using test::partial_plan;

TEST(VerifyPartial, ProvesAPlanByHand) { expect_proven(partial_plan()); }

TEST(VerifyPartial, CoverageIsOfAllRanks) {
  LoweredPlan plan = partial_plan();
  body<Attend>(plan, 0, false, 2).items.clear();
  expect_refuted(plan, Proof::coverage, "sees keys [4, 5), which leaves out keys [0, 4)");
}

TEST(VerifyPartial, EveryPartialIsMergedOnce) {
  LoweredPlan plan = partial_plan();
  plan.programs[1]
      .phase(PhaseKind::forward)
      .operations.erase(plan.programs[1].phase(PhaseKind::forward).operations.begin() + 3);
  expect_refuted(plan, Proof::dataflow, "hold 1 contributions where 2 segments contribute; some are missing");
  plan = partial_plan();
  auto& pairs = body<Merge>(plan, 1, false, 3).items;
  pairs.push_back(PartialPair(pairs[0]));
  expect_refuted(plan, Proof::dataflow, "hold 3 contributions where 2 segments contribute; some came more than once");
}

TEST(VerifyPartial, OutputAndLogSumExpGoTogether) {
  LoweredPlan plan = partial_plan();
  Merge& merge = body<Merge>(plan, 1, false, 3);
  merge.items[0].from_lse = merge.items[0].lse;
  expect_refuted(plan, Proof::dataflow, "while writing over it lse of document 0");
  plan = partial_plan();
  auto& operations = plan.programs[1].phase(PhaseKind::forward).operations;
  const PartialPair pair = body<Merge>(plan, 1, false, 3).items[0];
  operations.insert(operations.begin() + 3, test::operation(Clear{{pair.from_lse}}, {1}));
  expect_refuted(plan, Proof::dataflow, "rank 1 forward operation 4: folds output of document 0");
}

TEST(VerifyPartial, AnEmptyPartialIsNotMerged) {
  LoweredPlan plan = partial_plan();
  auto& operations = plan.programs[1].phase(PhaseKind::forward).operations;
  const PartialPair pair = body<Merge>(plan, 1, false, 3).items[0];
  operations.insert(operations.begin() + 3, test::operation(Clear{{pair.from_lse, pair.from_output}}, {1}));
  expect_refuted(plan, Proof::dataflow, "which holds no segment in rows [4, 8)");
}

TEST(VerifyPartial, PartialsTravelInTheAccumulationType) {
  LoweredPlan plan = partial_plan();
  auto& sends = body<Exchange>(plan, 0, false, 3).items;
  auto& receives = body<Exchange>(plan, 1, false, 2).items;
  for (auto* messages : {&sends, &receives}) {
    messages->push_back({messages->front().direction, messages->front().peer, {messages->front().blocks.back()}});
    messages->front().blocks.pop_back();
    messages->front().blocks.front().precision = Precision::input;
  }
  body<Attend>(plan, 0, false, 2).items[0].output.precision = Precision::input;
  body<Merge>(plan, 1, false, 3).items[0].from_output.precision = Precision::input;
  expect_refuted(plan, Proof::dataflow, "rank 0 forward operation 2: rounds output of document 0, rows [4, 8)");
}

TEST(VerifyPartial, OnlyTheFinalOutputGoesHome) {
  LoweredPlan plan = partial_plan();
  // The own part goes home before the other has come.
  auto& forward = plan.programs[1].phase(PhaseKind::forward).operations;
  std::swap(forward[3], forward[4]);
  expect_refuted(plan, Proof::dataflow, "rank 1 forward operation 3: rounds output of document 0");
}

TEST(VerifyPartial, DeltaIsOfTheFinalOutput) {
  LoweredPlan plan = partial_plan();
  auto& backward = plan.programs[1].phase(PhaseKind::backward).operations;
  Delta& delta = std::get<Delta>(backward.front().body);
  const test::BlockMaker one(plan, 1);
  const Block empty = one.arena(TensorName::output, Precision::input, Span{4, 8}, 832);
  plan.programs[1].buffer(BufferId::arena).bytes = 1088;
  delta.items[0].output = empty;
  backward.insert(backward.begin(), test::operation(Clear{{empty}}));
  expect_refuted(plan, Proof::result, "rank 1 backward operation 1: backward reads output of document 0");
}

TEST(VerifyPartial, ATileAwayReadsDeltaThatArrived) {
  LoweredPlan plan = partial_plan();
  plan.programs[1]
      .phase(PhaseKind::backward)
      .operations.erase(plan.programs[1].phase(PhaseKind::backward).operations.begin());
  expect_refuted(plan, Proof::dataflow, "rank 1 backward operation 0: reads delta of document 0");
  plan = partial_plan();
  body<AttendGradient>(plan, 0, true, 2).items[0].output.rows = Span{3, 7};
  expect_refuted(plan, Proof::coverage, "a segment has delta of document 0, rows [3, 7)");
}

TEST(VerifyPartial, MergesAndDeltasHaveTheirDirection) {
  LoweredPlan plan = partial_plan();
  plan.programs[1]
      .phase(PhaseKind::backward)
      .operations.push_back(plan.programs[1].phase(PhaseKind::forward).operations[3]);
  plan.programs[1].phase(PhaseKind::backward).operations.back().waits = {};
  expect_refuted(plan, Proof::coverage, "merge is no operation of the backward phase");
  plan = partial_plan();
  plan.programs[1]
      .phase(PhaseKind::forward)
      .operations.push_back(plan.programs[1].phase(PhaseKind::backward).operations[0]);
  expect_refuted(plan, Proof::coverage, "delta is no operation of the forward phase");
}

TEST(VerifyPartial, GradientsOfQueriesAddUpAtHome) {
  LoweredPlan plan = partial_plan();
  plan.programs[1]
      .phase(PhaseKind::backward)
      .operations.erase(plan.programs[1].phase(PhaseKind::backward).operations.begin() + 4);
  expect_refuted(plan, Proof::result, "grad_query of document 0, rows [4, 8)");
}

}  // namespace
}  // namespace evenspan
