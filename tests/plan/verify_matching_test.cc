// Proof 3 on plans written by hand.
#include "support/plan_by_hand.h"

namespace evenspan {
namespace {

using namespace plan;  // NOLINT
using test::body;
using test::expect_proven;
using test::expect_refuted;

TEST(VerifyMatching, UnmatchedMessages) {
  LoweredPlan plan = test::two_rank_plan();
  body<Exchange>(plan, 0, false, 0).items.pop_back();
  expect_refuted(plan, Proof::matching, "rank 0 sends 1 messages to rank 1, which receives 2; nobody sends value");
  plan = test::two_rank_plan();
  auto& receives = body<Exchange>(plan, 1, false, 0).items;
  receives.pop_back();
  expect_refuted(plan, Proof::matching, "rank 0 sends 2 messages to rank 1, which receives 1; nobody receives value");
}

TEST(VerifyMatching, OrderOfMessages) {
  LoweredPlan plan = test::two_rank_plan();
  auto& sends = body<Exchange>(plan, 0, false, 0).items;
  std::swap(sends[0], sends[1]);
  expect_refuted(plan, Proof::matching,
                 "message 0 from rank 0 (operation 0) to rank 1 (operation 0), block 0: sent is value");
}

TEST(VerifyMatching, BlocksThatDiffer) {
  const auto refuted = [](auto damage, const std::string& text) {
    LoweredPlan plan = test::two_rank_plan();
    damage(body<Exchange>(plan, 0, true, 2).items[0].blocks);
    expect_refuted(plan, Proof::matching, text);
  };
  refuted([](auto& blocks) { blocks[1].rows.end = 3; }, "block 1: sent is grad_value");
  refuted([](auto& blocks) { blocks[1].tensor = TensorName::grad_key; }, "received is grad_key");
  refuted([](auto& blocks) { blocks[1].heads = HeadRange{0, 1}, blocks[1].row_stride = 8; }, "received is grad_value");
  refuted([](auto& blocks) { blocks[1].precision = Precision::input; }, "rows [0, 4), heads [0, 2), input");
  refuted([](auto& blocks) { blocks.pop_back(); }, "is sent with 2 blocks and received with 1");
}

TEST(VerifyMatching, OneRowHasAnyStride) {
  LoweredPlan plan = test::one_rank_plan(1);
  body<Attend>(plan, 0, false, 0).items[0].query.row_stride = 77;
  expect_proven(plan);
}

TEST(VerifyMatching, BlocksOfAMessageLieBackToBack) {
  const auto refuted = [](auto damage, const std::string& text) {
    LoweredPlan plan = test::two_rank_plan();
    damage(body<Exchange>(plan, 1, true, 4).items[0].blocks);
    expect_refuted(plan, Proof::matching, text);
  };
  refuted([](auto& blocks) { blocks[1].offset_bytes -= 4; }, "is not back to back");
  refuted([](auto& blocks) { blocks[1].buffer = BufferId::saved; }, "is not back to back");
  refuted([](auto& blocks) { blocks[0].row_stride += 1; }, "travels but is not dense");
  refuted([](auto& blocks) { blocks[0].heads.end = 1; }, "travels but is not dense");
  refuted([](auto& blocks) { blocks.clear(); }, "has no block");
  // At home, two tensors are never neighbours.
  LoweredPlan plan = test::two_rank_plan();
  auto& sends = body<Exchange>(plan, 0, false, 0).items;
  sends[0].blocks.push_back(sends[1].blocks[0]);
  expect_refuted(plan, Proof::matching, "is not back to back");
}

TEST(VerifyMatching, Peers) {
  for (const int64_t peer : {0, 2, -1, 1 << 30}) {
    LoweredPlan plan = test::two_rank_plan();
    body<Exchange>(plan, 0, false, 0).items[0].peer = Rank(peer);
    expect_refuted(plan, Proof::matching, "rank 0 forward operation 0: a message has peer");
  }
}

TEST(VerifyMatching, Waits) {
  const auto refuted = [](auto damage, const std::string& text) {
    LoweredPlan plan = test::two_rank_plan();
    damage(plan.programs[1].phase(PhaseKind::backward).operations);
    expect_refuted(plan, Proof::matching, text);
  };
  refuted([](auto& operations) { operations[2].waits = {7}; }, "operation 2: waits for event 7, which no operation");
  refuted([](auto& operations) { operations[2].waits = {0, 1}; }, "operation 2: waits for event 1");
  refuted([](auto& operations) { operations[4].waits = {1}; }, "operation 4: waits for event 1");
  refuted([](auto& operations) { operations[4].signals = 0; }, "signals event 0, as an operation before it does");
  refuted([](auto& operations) { operations[4].signals = kNoEvent; }, "exchange signals no event");
  refuted([](auto& operations) { operations[3].signals = 9; }, "copy signals an event");
}

// Both ranks send the other what it needs, in one exchange each, or in two.
LoweredPlan crossing_plan(bool receive_first) {
  LoweredPlan plan = test::two_rank_plan();
  for (int32_t rank = 0; rank < 2; ++rank) {
    const test::BlockMaker make(plan, rank);
    const Span own = rank == 0 ? Span{0, 4} : Span{4, 8};
    const Span other = rank == 0 ? Span{4, 8} : Span{0, 4};
    const test::Ends send{Rank(1 - rank), {make.home(TensorName::query, own)}};
    const test::Ends receive{Rank(1 - rank), {make.arena(TensorName::query, Precision::input, other, 4096)}};
    RankProgram& programs = plan.programs[static_cast<size_t>(rank)];
    auto& operations = programs.phase(PhaseKind::forward).operations;
    programs.buffer(BufferId::arena).bytes = 8192;
    if (receive_first) {
      operations.push_back(test::exchange(10, {}, {receive}));
      operations.push_back(test::exchange(11, {send}, {}));
    } else {
      operations.push_back(test::exchange(10, {send}, {receive}));
    }
  }
  return plan;
}

TEST(VerifyMatching, Deadlock) {
  expect_proven(crossing_plan(false));
  expect_refuted(
      crossing_plan(true), Proof::matching,
      "rank 0 forward operation 2: deadlock: rank 0 in operation 2 waits for rank 1 in operation 4 waits for "
      "rank 0");
}

TEST(VerifyMatching, SendsThatWouldOnlyPassThroughABuffer) {
  // Rank 0 sends a then receives b, rank 1 sends b then receives a: fine with buffered sends, stuck without.
  LoweredPlan plan = crossing_plan(true);
  for (auto& programs : plan.programs) {
    auto& operations = programs.phase(PhaseKind::forward).operations;
    std::swap(operations[operations.size() - 2], operations.back());
  }
  expect_refuted(plan, Proof::matching, "deadlock");
}

}  // namespace
}  // namespace evenspan
