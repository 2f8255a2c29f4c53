// What a parsed text can hold: every number anywhere, and still a finding instead of a crash.
#include <limits>
#include <random>

#include "plan/visit.h"
#include "support/plan_by_hand.h"

namespace evenspan {
namespace {

using namespace plan;  // NOLINT
using test::body;
using test::expect_refuted;

TEST(VerifyMalformed, Requests) {
  const auto refuted = [](auto damage, Proof proof, const std::string& text) {
    LoweredPlan plan = test::two_rank_plan();
    damage(plan);
    expect_refuted(plan, proof, text);
  };
  refuted([](LoweredPlan& p) { p.request.shape.num_kv_heads = 0; }, Proof::coverage,
          "attention shape has 4 heads, 0 kv");
  refuted([](LoweredPlan& p) { p.request.shape.num_heads = 5; }, Proof::coverage, "kv heads divide heads");
  refuted([](LoweredPlan& p) { p.request.shape.head_dim = -8; }, Proof::coverage, "head dimension -8");
  refuted([](LoweredPlan& p) { p.request.shape.element = static_cast<ElementType>(9); }, Proof::coverage,
          "element type 9");
  refuted(
      [](LoweredPlan& p) {
        p.request.shape.num_heads = p.request.shape.num_kv_heads = p.request.shape.head_dim = 2147483647;
      },
      Proof::coverage, "too large");
  refuted([](LoweredPlan& p) { p.request.documents = Documents(); }, Proof::coverage, "there are no documents");
  refuted([](LoweredPlan& p) { p.programs.pop_back(); }, Proof::matching, "1 programs for 2 ranks");
  refuted([](LoweredPlan& p) { p.programs.clear(); }, Proof::matching, "0 programs for 2 ranks");
  refuted([](LoweredPlan& p) { p.request.topology.num_ranks = 3; }, Proof::matching, "2 programs for 3 ranks");
  refuted([](LoweredPlan& p) { p.placement = Placement(); }, Proof::matching, "a placement on 0");
  refuted([](LoweredPlan& p) { p = LoweredPlan(); }, Proof::coverage, "attention shape has 0 heads");
}

TEST(VerifyMalformed, Blocks) {
  const auto refuted = [](auto damage, const std::string& text) {
    LoweredPlan plan = test::two_rank_plan();
    damage(body<Attend>(plan, 1, false, 2).items[0].key);
    expect_refuted(plan, Proof::dataflow, text);
  };
  refuted([](Block& b) { b.document = DocumentId(1); }, "the batch has 1 documents");
  refuted([](Block& b) { b.document = DocumentId(-1); }, "the batch has 1 documents");
  refuted([](Block& b) { b.rows = Span{4, 4}; }, "rows are empty or outside the document's 8");
  refuted([](Block& b) { b.rows = Span{-1, 3}; }, "rows are empty or outside");
  refuted([](Block& b) { b.rows = Span{5, 9}; }, "rows are empty or outside");
  refuted([](Block& b) { b.heads = HeadRange{0, 3}; }, "heads are empty or outside the tensor's 2");
  refuted([](Block& b) { b.heads = HeadRange{-1, 1}; }, "heads are empty or outside");
  refuted([](Block& b) { b.heads = HeadRange{1, 0}; }, "heads are empty or outside");
  refuted([](Block& b) { b.tensor = static_cast<TensorName>(200); }, "a block has tensor 200");
  refuted([](Block& b) { b.buffer = static_cast<BufferId>(200); }, "buffer 200 of 3");
  refuted([](Block& b) { b.precision = static_cast<Precision>(200); }, "precision 200");
}

TEST(VerifyMalformed, Operations) {
  LoweredPlan plan = test::two_rank_plan();
  std::swap(plan.programs[0].phase(PhaseKind::forward).operations,
            plan.programs[0].phase(PhaseKind::backward).operations);
  expect_refuted(plan, Proof::coverage, "attend_gradient is no operation of the forward phase");
  plan = test::two_rank_plan();
  plan.programs[0].phase(PhaseKind::backward).operations = plan.programs[0].phase(PhaseKind::forward).operations;
  expect_refuted(plan, Proof::coverage, "attend is no operation of the backward phase");
  plan = test::two_rank_plan();
  std::swap(plan.programs[1].phases[0], plan.programs[1].phases[1]);
  expect_refuted(plan, Proof::matching,
                 "rank 1: the phases are backward forward; a softmax layer has forward backward");
  plan = test::two_rank_plan();
  plan.programs[0].phases.clear();
  expect_refuted(plan, Proof::matching, "rank 0: the phases are none");
  plan = test::two_rank_plan();
  body<Copy>(plan, 1, false, 3).items[0].to.rows.end = 7;
  expect_refuted(plan, Proof::dataflow, "are not the same part of one tensor");
  plan = test::two_rank_plan();
  const BlockPair& pair = body<Copy>(plan, 1, true, 3).items[0];
  BlockPair outputs = pair;
  outputs.from.tensor = TensorName::output;
  outputs.to = outputs.from;
  plan.programs[1].phase(PhaseKind::backward).operations[3] = test::operation(Accumulate{{outputs}});
  expect_refuted(plan, Proof::dataflow, "only gradients are added");
  plan = test::two_rank_plan();
  Block key = body<Attend>(plan, 1, false, 2).items[0].key;
  plan.programs[1].phase(PhaseKind::forward).operations.push_back(test::operation(Clear{{key}}));
  expect_refuted(plan, Proof::dataflow, "which is no partial");
  plan = test::two_rank_plan();
  body<Attend>(plan, 1, false, 2).items[0].lse.precision = Precision::input;
  expect_refuted(plan, Proof::dataflow, "log-sum-exp and delta have the accumulation type");
  plan = test::two_rank_plan();
  body<AttendGradient>(plan, 1, true, 2).items[0].grad_key.block.tensor = TensorName::grad_value;
  expect_refuted(plan, Proof::coverage, "as its grad_key");
  plan = test::two_rank_plan();
  body<Attend>(plan, 1, false, 2).items[0].kind = static_cast<TileKind>(7);
  expect_refuted(plan, Proof::coverage, "has kind 7");
}

// Sets one random field of one random block, message or segment to a random or extreme value. Most results are wrong
// plans; what matters is that verify() ends.
void scramble(std::mt19937_64& random, LoweredPlan& plan) {
  const auto pick = [&random](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  const auto number = [&]() -> int64_t {
    constexpr std::array<int64_t, 12> kExtremes = {0,
                                                   1,
                                                   -1,
                                                   2,
                                                   4,
                                                   7,
                                                   8,
                                                   9,
                                                   1 << 30,
                                                   std::numeric_limits<int32_t>::max(),
                                                   std::numeric_limits<int64_t>::max(),
                                                   std::numeric_limits<int64_t>::min()};
    return pick(0, 1) == 0 ? kExtremes[static_cast<size_t>(pick(0, 11))] : pick(-1, 12);
  };
  RankProgram& programs = plan.programs[static_cast<size_t>(pick(0, 1))];
  Phase& program = programs.phases[static_cast<size_t>(pick(0, 1))];
  Operation& operation =
      program.operations[static_cast<size_t>(pick(0, static_cast<int64_t>(program.operations.size()) - 1))];
  const auto scramble_block = [&](Block& block) {
    switch (pick(0, 8)) {
      case 0:
        block.tensor = static_cast<TensorName>(pick(0, 10));
        break;
      case 1:
        block.buffer = static_cast<BufferId>(pick(0, 3));
        break;
      case 2:
        block.precision = static_cast<Precision>(pick(0, 2));
        break;
      case 3:
        block.document = DocumentId(number());
        break;
      case 4:
        block.rows.begin = number();
        break;
      case 5:
        block.rows.end = number();
        break;
      case 6:
        block.heads = HeadRange{static_cast<int32_t>(number()), static_cast<int32_t>(number())};
        break;
      case 7:
        block.offset_bytes = number();
        break;
      default:
        block.row_stride = number();
        break;
    }
  };
  switch (pick(0, 9)) {
    case 0:
      operation.waits.push_back(static_cast<int32_t>(number()));
      break;
    case 1:
      programs.buffers[static_cast<size_t>(pick(0, 2))].bytes = number();
      break;
    case 2:
      programs.buffers[static_cast<size_t>(pick(0, 2))].lifetime = static_cast<Lifetime>(pick(0, 3));
      break;
    case 3:
      if (auto* exchange = std::get_if<Exchange>(&operation.body)) {
        operation.signals = static_cast<Event>(number());
        for (Message& message : exchange->items) message.peer = Rank(number());
      } else if (auto* attend = std::get_if<Attend>(&operation.body)) {
        attend->items[0].kind = static_cast<TileKind>(pick(0, 5));
        attend->items[0].window = number();
      }
      break;
    default: {
      int64_t count = 0;
      for_each_block(operation, plan.request.shape, [&](Block&, Access) { ++count; });
      int64_t chosen = count == 0 ? -1 : pick(0, count - 1);
      for_each_block(operation, plan.request.shape, [&](Block& block, Access) {
        if (chosen-- == 0) scramble_block(block);
      });
    }
  }
}

TEST(VerifyMalformed, AnyNumberAnywhereEndsInFindings) {
  std::mt19937_64 random(1);
  int num_refused = 0;
  for (int trial = 0; trial < 20000; ++trial) {
    LoweredPlan plan = test::two_rank_plan();
    for (int damage = 0; damage < 1 + trial % 3; ++damage) scramble(random, plan);
    num_refused += verify(plan).empty() ? 0 : 1;
  }
  EXPECT_GT(num_refused, 15000);
}

}  // namespace
}  // namespace evenspan
