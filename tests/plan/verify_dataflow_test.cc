// Proofs 2 and 4 on plans written by hand.
#include "support/plan_by_hand.h"

namespace evenspan {
namespace {

using namespace plan;  // NOLINT
using test::body;
using test::expect_proven;
using test::expect_refuted;

TEST(VerifyDataflow, ProvesPlansByHand) {
  expect_proven(test::one_rank_plan(5));
  expect_proven(test::one_rank_plan(1));
  expect_proven(test::one_rank_plan(7, Mask{MaskKind::full, 0}, TileKind::full));
  expect_proven(test::one_rank_plan(7, Mask{MaskKind::window, 3}, TileKind::band));
  expect_proven(test::two_rank_plan());
}

TEST(VerifyDataflow, ReadsBeforeArrival) {
  LoweredPlan plan = test::two_rank_plan();
  plan.programs[1].phase(PhaseKind::forward).operations[2].waits = {};
  expect_refuted(plan, Proof::dataflow, "rank 1 forward operation 2: reads key of document 0, rows [0, 4)");
  expect_refuted(plan, Proof::dataflow, "where exchange 0 is bringing");
}

TEST(VerifyDataflow, AnyNumberNamesAnEvent) {
  for (const Event event : {-2, -2147483647 - 1, 2147483647}) {
    LoweredPlan plan = test::two_rank_plan();
    plan.programs[1].phase(PhaseKind::forward).operations[0].signals = event;
    plan.programs[1].phase(PhaseKind::forward).operations[2].waits = {event};
    expect_proven(plan);
    plan.programs[1].phase(PhaseKind::forward).operations[2].waits = {};
    expect_refuted(plan, Proof::dataflow, "where exchange " + std::to_string(event) + " is bringing");
  }
}

TEST(VerifyDataflow, AtTheEndEverythingIsWaitedFor) {
  // Received straight into home, nobody waits: the end of the program does.
  LoweredPlan plan = test::two_rank_plan();
  using enum TensorName;
  const Span low{0, 4};
  const test::BlockMaker zero(plan, 0);
  const test::BlockMaker one(plan, 1);
  auto& receiver = plan.programs[0].phase(PhaseKind::backward).operations;
  receiver.resize(2);
  auto& own = body<AttendGradient>(plan, 0, true, 1).items[0];
  own.grad_key.block = zero.arena(grad_key, Precision::input, low, 0);
  own.grad_value.block = zero.arena(grad_value, Precision::input, low, 128);
  const Block key_sent = one.arena(grad_key, Precision::accumulation, low, 1024);
  const Block value_sent = one.arena(grad_value, Precision::accumulation, low, 1280);
  // Rank 1 gets rank 0's part, adds, rounds and sends the finished gradients home.
  const Block key_part = one.arena(grad_key, Precision::input, low, 1536);
  const Block value_part = one.arena(grad_value, Precision::input, low, 1664);
  const Block key_final = one.arena(grad_key, Precision::input, low, 1792);
  const Block value_final = one.arena(grad_value, Precision::input, low, 1920);
  receiver.push_back(test::exchange(1, {{Rank(1), {own.grad_key.block, own.grad_value.block}}}, {}));
  receiver.push_back(
      test::exchange(2, {}, {{Rank(1), {zero.home(grad_key, low)}}, {Rank(1), {zero.home(grad_value, low)}}}));
  auto& sender = plan.programs[1].phase(PhaseKind::backward).operations;
  sender.resize(4);
  sender.push_back(test::exchange(1, {}, {{Rank(0), {key_part, value_part}}}));
  sender.push_back(test::operation(Accumulate{{{key_sent, key_part}, {value_sent, value_part}}}, {1}));
  sender.push_back(test::operation(Copy{{{key_final, key_sent}, {value_final, value_sent}}}));
  sender.push_back(test::exchange(2, {{Rank(0), {key_final}}, {Rank(0), {value_final}}}, {}));
  plan.programs[1].buffer(BufferId::arena).bytes = 2048;
  expect_proven(plan);

  // The same without the last exchange.
  receiver.pop_back();
  sender.pop_back();
  expect_refuted(plan, Proof::result, "grad_key of document 0, rows [0, 4)");
}

TEST(VerifyDataflow, OverwritesWhatIsArriving) {
  LoweredPlan plan = test::two_rank_plan();
  body<Attend>(plan, 1, false, 1).items[0].output.offset_bytes = 0;
  expect_refuted(plan, Proof::dataflow, "rank 1 forward operation 1: overwrites output of document 0");
}

TEST(VerifyDataflow, OverwritesWhatIsBeingSent) {
  LoweredPlan plan = test::two_rank_plan();
  const Block sent = body<Exchange>(plan, 1, true, 4).items[0].blocks[0];
  plan.programs[1].phase(PhaseKind::backward).operations.push_back(test::operation(Clear{{sent}}));
  expect_refuted(plan, Proof::dataflow, "rank 1 backward operation 5: overwrites grad_key");
  expect_refuted(plan, Proof::dataflow, "which exchange 1 is sending");
  plan.programs[1].phase(PhaseKind::backward).operations.back().waits = {1};
  expect_proven(plan);
}

TEST(VerifyDataflow, ReadsWhatNobodyWrote) {
  LoweredPlan plan = test::two_rank_plan();
  body<Attend>(plan, 1, false, 2).items[0].key.offset_bytes = 64;
  expect_refuted(plan, Proof::dataflow, "rank 1 forward operation 2: reads key");
}

TEST(VerifyDataflow, ReadsWithAnotherRowStride) {
  LoweredPlan plan = test::two_rank_plan();
  auto& segment = body<Attend>(plan, 1, false, 2).items[0];
  segment.key.row_stride += 1;
  expect_refuted(plan, Proof::dataflow, "reads key of document 0, rows [0, 4)");
}

TEST(VerifyDataflow, ForgetsTheArenaBetweenForwardAndBackward) {
  // Backward reads the keys that forward received, without receiving them again.
  LoweredPlan plan = test::two_rank_plan();
  for (auto& programs : plan.programs) {
    programs.phase(PhaseKind::backward).operations.erase(programs.phase(PhaseKind::backward).operations.begin());
    for (Operation& operation : programs.phase(PhaseKind::backward).operations) std::erase(operation.waits, 0);
  }
  expect_refuted(plan, Proof::dataflow, "rank 1 backward operation 1: reads key of document 0, rows [0, 4)");
  // Saved contents survive.
  for (Message& message : body<Exchange>(plan, 1, false, 0).items) {
    message.blocks[0].buffer = BufferId::saved;
    message.blocks[0].offset_bytes += 64;
  }
  const auto use_saved = [](Segment& segment) {
    for (Block* block : {&segment.key, &segment.value}) {
      block->buffer = BufferId::saved;
      block->offset_bytes += 64;
    }
  };
  use_saved(body<Attend>(plan, 1, false, 2).items[0]);
  use_saved(body<AttendGradient>(plan, 1, true, 1).items[0]);
  plan.programs[1].buffer(BufferId::saved).bytes = 448;
  expect_proven(plan);
}

TEST(VerifyDataflow, FoldsIntoNothing) {
  LoweredPlan plan = test::two_rank_plan();
  body<Attend>(plan, 1, false, 1).items[0].fold = true;
  expect_refuted(plan, Proof::dataflow, "rank 1 forward operation 1: reads output of document 0, rows [4, 8)");
  const ForwardSegment& segment = body<Attend>(plan, 1, false, 1).items[0];
  auto& operations = plan.programs[1].phase(PhaseKind::forward).operations;
  operations.insert(operations.begin(), test::operation(Clear{{segment.output, segment.lse}}));
  expect_proven(plan);
}

TEST(VerifyDataflow, FoldsOutputAndLogSumExpOfDifferentSegments) {
  LoweredPlan plan = test::two_rank_plan();
  const ForwardSegment segment = body<Attend>(plan, 1, false, 1).items[0];
  auto& operations = plan.programs[1].phase(PhaseKind::forward).operations;
  operations.insert(operations.begin() + 2, test::operation(Clear{{segment.lse}}));
  expect_refuted(plan, Proof::dataflow, "folds output of document 0");
}

TEST(VerifyDataflow, OverwritesInsteadOfFolding) {
  LoweredPlan plan = test::two_rank_plan();
  body<Attend>(plan, 1, false, 2).items[0].fold = false;
  expect_refuted(plan, Proof::dataflow, "hold 1 contributions where 2 segments contribute; some are missing");
  // Without rounding it is the result that is wrong.
  plan = test::two_rank_plan(ElementType::f32);
  expect_proven(plan);
  body<Attend>(plan, 1, false, 2).items[0].fold = false;
  expect_refuted(plan, Proof::result,
                 "rank 1: output of document 0, rows [4, 8), heads [0, 4), input, home at byte 0 is not complete");
}

TEST(VerifyDataflow, RoundsWhatIsUnfinished) {
  LoweredPlan plan = test::two_rank_plan();
  auto& operations = plan.programs[1].phase(PhaseKind::forward).operations;
  std::swap(operations[2], operations[3]);
  expect_refuted(plan, Proof::dataflow, "rank 1 forward operation 2: rounds output of document 0, rows [4, 8)");
}

TEST(VerifyDataflow, OneGradientMayBeRounded) {
  // The gradient of a single segment travels in the input type, and is added to another.
  LoweredPlan plan = test::two_rank_plan();
  auto& sent = body<Exchange>(plan, 1, true, 4).items[0].blocks;
  auto& received = body<Exchange>(plan, 0, true, 2).items[0].blocks;
  auto& segment = body<AttendGradient>(plan, 1, true, 2).items[0];
  auto& pairs = body<Accumulate>(plan, 0, true, 3).items;
  for (Block* block : {&sent[0], &sent[1], &received[0], &received[1], &segment.grad_key.block,
                       &segment.grad_value.block, &pairs[0].from, &pairs[1].from}) {
    block->precision = Precision::input;
  }
  for (Block* block : {&sent[1], &segment.grad_value.block}) block->offset_bytes = sent[0].offset_bytes + 128;
  for (Block* block : {&received[1], &pairs[1].from}) block->offset_bytes = received[0].offset_bytes + 128;
  expect_proven(plan);
}

TEST(VerifyDataflow, CopiesOverWhatItReads) {
  LoweredPlan plan = test::two_rank_plan();
  Block shifted = body<Copy>(plan, 1, false, 3).items[0].from;
  const Block partial = shifted;
  shifted.offset_bytes += 128;
  plan.programs[1].buffer(BufferId::arena).bytes += 128;
  auto& operations = plan.programs[1].phase(PhaseKind::forward).operations;
  operations.insert(operations.begin() + 3, test::operation(Copy{{{shifted, partial}}}));
  body<Copy>(plan, 1, false, 4).items[0].from = shifted;
  expect_refuted(plan, Proof::dataflow, "while writing over it");
}

TEST(VerifyDataflow, WritesOverAnOperandOfTheSameCall) {
  // One segment's output lies where another segment of the same call reads its keys.
  LoweredPlan plan = test::two_rank_plan();
  auto& segment = body<Attend>(plan, 1, false, 2).items[0];
  auto& first = body<Attend>(plan, 1, false, 1).items[0];
  auto& pair = body<Copy>(plan, 1, false, 3).items[0];
  plan.programs[1].phase(PhaseKind::forward).operations[1].waits = {0};
  std::swap(plan.programs[1].phase(PhaseKind::forward).operations[1],
            plan.programs[1].phase(PhaseKind::forward).operations[2]);
  std::swap(first.fold, segment.fold);
  for (Block* block : {&segment.output, &first.output, &pair.from}) block->offset_bytes = 256;
  expect_refuted(plan, Proof::dataflow, "reads value of document 0, rows [0, 4)");
}

TEST(VerifyDataflow, WritesTwoResultsToOnePlace) {
  LoweredPlan plan = test::two_rank_plan();
  auto& segment = body<AttendGradient>(plan, 1, true, 2).items[0];
  segment.grad_value.block.offset_bytes = segment.grad_key.block.offset_bytes;
  expect_refuted(plan, Proof::dataflow, "reads grad_key");
}

TEST(VerifyResult, GradientIsIncompleteWithoutTheReceivedPart) {
  LoweredPlan plan = test::two_rank_plan();
  auto& operations = plan.programs[0].phase(PhaseKind::backward).operations;
  operations.erase(operations.begin() + 3);
  expect_refuted(plan, Proof::result, "hold 1 contributions where 2 segments contribute; some are missing");
}

TEST(VerifyResult, GradientIsAddedTwice) {
  LoweredPlan plan = test::two_rank_plan();
  auto& operations = plan.programs[0].phase(PhaseKind::backward).operations;
  operations.insert(operations.begin() + 3, operations[3]);
  expect_refuted(plan, Proof::dataflow, "hold 3 contributions where 2 segments contribute; some came more than once");
}

TEST(VerifyResult, HomeRowWithoutResult) {
  LoweredPlan plan = test::two_rank_plan();
  plan.programs[0].phase(PhaseKind::backward).operations.pop_back();
  expect_refuted(plan, Proof::result, "grad_key of document 0, rows [0, 4)");
  plan = test::two_rank_plan();
  plan.programs[1].phase(PhaseKind::forward).operations.pop_back();
  expect_refuted(plan, Proof::result, "rank 1: reads output of document 0, rows [4, 8)");
}

TEST(VerifyResult, BackwardReadsAnUnfinishedLogSumExp) {
  // Rank 1 keeps the log-sum-exp of its first segment aside, and backward reads that.
  LoweredPlan plan = test::two_rank_plan();
  Block aside = body<Attend>(plan, 1, false, 1).items[0].lse;
  const Block final_lse = aside;
  aside.offset_bytes = 64;
  plan.programs[1].buffer(BufferId::saved).bytes = 128;
  auto& operations = plan.programs[1].phase(PhaseKind::forward).operations;
  operations.insert(operations.begin() + 2, test::operation(Copy{{{aside, final_lse}}}));
  expect_proven(plan);
  body<AttendGradient>(plan, 1, true, 2).items[0].lse = aside;
  expect_refuted(plan, Proof::result, "backward operation 2: backward reads lse of document 0, rows [4, 8)");
}

TEST(VerifyResult, PlacementMustHoldEveryTokenOnce) {
  LoweredPlan plan = test::two_rank_plan();
  plan.placement = Placement(plan.request.documents, {{{DocumentId(0), Span{0, 5}}}, {{DocumentId(0), Span{5, 8}}}});
  expect_refuted(plan, Proof::memory, "the rank is not home to these rows");
  plan.placement = Placement(Documents({5}, Mask{}), {{{DocumentId(0), Span{0, 4}}}, {{DocumentId(0), Span{4, 5}}}});
  expect_refuted(plan, Proof::result, "document 0 is home up to token 5 of 8");
}

}  // namespace
}  // namespace evenspan
