// Proof 5, and the overlap of strided areas that proofs 2 and 5 rest on.
#include <limits>
#include <random>

#include "plan/verify/geometry.h"
#include "support/plan_by_hand.h"

namespace evenspan {
namespace {

using namespace plan;  // NOLINT
using test::body;
using test::expect_proven;
using test::expect_refuted;

TEST(VerifyMemory, BlocksStayInside) {
  LoweredPlan plan = test::two_rank_plan();
  plan.programs[1].buffer(BufferId::arena).bytes -= 1;
  expect_refuted(plan, Proof::memory, "rank 1 backward operation 2: grad_value of document 0");
  expect_refuted(plan, Proof::memory, "ends at byte 1536 of 1535");
  plan = test::two_rank_plan();
  plan.programs[0].buffer(BufferId::saved).bytes = 63;
  expect_refuted(plan, Proof::memory, "ends at byte 64 of 63");
  plan = test::two_rank_plan();
  plan.programs[0].buffer(BufferId::arena).bytes = -1;
  expect_refuted(plan, Proof::memory, "which is not negative");
}

TEST(VerifyMemory, Budget) {
  LoweredPlan plan = test::two_rank_plan();
  plan.request.options.memory_budget_bytes = 1536 + 64;
  expect_proven(plan);
  plan.request.options.memory_budget_bytes -= 1;
  expect_refuted(plan, Proof::memory, "rank 1: 1536 of arena + 64 of saved bytes exceed the memory budget of 1599");
  // A budget is of all buffers together, and sums do not overflow.
  plan.programs[1].buffers.push_back({Lifetime::step, std::numeric_limits<int64_t>::max()});
  expect_refuted(plan, Proof::memory, "of buffer3 bytes exceed the memory budget");
}

TEST(VerifyMemory, BuffersAreDeclared) {
  LoweredPlan plan = test::two_rank_plan();
  plan.programs[1].buffers.pop_back();
  expect_refuted(plan, Proof::dataflow, "buffer 2 of 2");
  plan = test::two_rank_plan();
  plan.programs[1].buffer(BufferId::saved).lifetime = Lifetime::phase;
  expect_refuted(plan, Proof::dataflow, "rank 1 backward operation 1: reads lse of document 0");
  plan = test::two_rank_plan();
  plan.programs[0].buffer(BufferId::arena).lifetime = Lifetime::caller;
  expect_refuted(plan, Proof::memory, "rank 0: arena has 1024 bytes");
  plan = test::two_rank_plan();
  plan.programs[0].buffers.clear();
  expect_refuted(plan, Proof::memory, "rank 0: home has 0 bytes");
  // Two buffers of one lifetime: what is saved may lie in either.
  plan = test::two_rank_plan();
  const auto other = static_cast<BufferId>(plan.programs[1].buffers.size());
  plan.programs[1].buffers.push_back({Lifetime::step, 64});
  for (const auto& [phase, operation] : {std::pair{false, size_t{1}}, {false, size_t{2}}}) {
    body<Attend>(plan, 1, phase, operation).items[0].lse.buffer = other;
  }
  for (const size_t operation : {1, 2}) body<AttendGradient>(plan, 1, true, operation).items[0].lse.buffer = other;
  expect_proven(plan);
}

TEST(VerifyMemory, Addresses) {
  const auto refuted = [](auto damage, Proof proof, const std::string& text) {
    LoweredPlan plan = test::two_rank_plan();
    damage(body<Attend>(plan, 1, false, 2).items[0]);
    expect_refuted(plan, proof, text);
  };
  refuted([](ForwardSegment& s) { s.key.offset_bytes = -2; }, Proof::memory, "no address");
  refuted([](ForwardSegment& s) { s.key.offset_bytes = 1; }, Proof::memory, "offsets are multiples of 2");
  refuted([](ForwardSegment& s) { s.output.offset_bytes = 514; }, Proof::memory, "offsets are multiples of 4");
  refuted([](ForwardSegment& s) { s.key.offset_bytes = int64_t{1} << 62; }, Proof::memory, "no address");
  refuted([](ForwardSegment& s) { s.key.row_stride = int64_t{1} << 62; }, Proof::memory, "no address");
  refuted([](ForwardSegment& s) { s.key.row_stride = 15; }, Proof::memory, "strides at least 16");
  refuted([](ForwardSegment& s) { s.key.row_stride = -16; }, Proof::memory, "no address");
  refuted([](ForwardSegment& s) { s.query.offset_bytes += 2; }, Proof::memory,
          "its home is at byte 0 with row stride 32");
  refuted([](ForwardSegment& s) { s.query.row_stride += 8; }, Proof::memory,
          "its home is at byte 0 with row stride 32");
  refuted([](ForwardSegment& s) { s.query.rows = Span{3, 7}; }, Proof::memory, "the rank is not home to these rows");
  refuted([](ForwardSegment& s) { s.query.precision = Precision::accumulation; }, Proof::dataflow,
          "at home it has the input type");
  refuted([](ForwardSegment& s) { s.lse.buffer = BufferId::home; }, Proof::dataflow,
          "is written, which the forward phase must not");
}

TEST(VerifyMemory, InputsAreNeverWritten) {
  LoweredPlan plan = test::two_rank_plan();
  for (Message& message : body<Exchange>(plan, 1, false, 0).items) {
    message.blocks[0] = test::BlockMaker(plan, 1).home(message.blocks[0].tensor, Span{4, 8});
  }
  expect_refuted(plan, Proof::dataflow, "home at byte 0 is written, which the forward phase must not");
  // The output is an input of backward.
  plan = test::two_rank_plan();
  auto& pair = body<Copy>(plan, 1, true, 3).items[0];
  pair = body<Copy>(plan, 1, false, 3).items[0];
  expect_refuted(plan, Proof::dataflow, "home at byte 0 is written, which the backward phase must not");
}

TEST(Geometry, OverlapAgreesWithBytes) {
  std::mt19937 random(3);
  const auto pick = [&random](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  int num_exact = 0;
  for (int trial = 0; trial < 200000; ++trial) {
    const auto make = [&] {
      proofs::Area area{pick(0, 40), 0, pick(1, 5), pick(1, 6)};
      area.pitch = area.num_rows == 1 ? area.row_bytes : area.row_bytes + pick(0, 3);
      return area;
    };
    const proofs::Area a = make();
    const proofs::Area b = make();
    const auto occupied = [](const proofs::Area& area, int64_t byte) {
      const int64_t at = byte - area.begin;
      return at >= 0 && at / area.pitch < area.num_rows && at % area.pitch < area.row_bytes;
    };
    std::vector<int> told(static_cast<size_t>(a.num_rows * a.row_bytes), 0);
    for (const proofs::Patch& patch : proofs::overlap(a, b)) {
      for (int64_t row = patch.row_begin; row < patch.row_end; ++row) {
        for (int64_t byte = patch.byte_begin; byte < patch.byte_end; ++byte) {
          ++told[static_cast<size_t>(row * a.row_bytes + byte)];
        }
      }
    }
    // Documented: two areas with gaps and different pitch may be told to overlap more than they do.
    const bool fits = a.num_rows == 1 ? a.row_bytes <= b.pitch : a.pitch == b.pitch;
    const bool exact = b.dense() || fits;
    num_exact += exact ? 1 : 0;
    for (int64_t row = 0; row < a.num_rows; ++row) {
      for (int64_t byte = 0; byte < a.row_bytes; ++byte) {
        const int count = told[static_cast<size_t>(row * a.row_bytes + byte)];
        const bool overlaps = occupied(b, a.begin + row * a.pitch + byte);
        ASSERT_GE(count, overlaps ? 1 : 0) << "trial " << trial;
        ASSERT_LE(count, overlaps || !exact ? 1 : 0) << "trial " << trial;
      }
    }
  }
  EXPECT_GT(num_exact, 50000);
}

struct Thing {
  int64_t from, to;
  int64_t begin() const { return from; }
  int64_t end() const { return to; }
};

TEST(Geometry, IndexFindsWhatOverlaps) {
  std::mt19937 random(5);
  const auto pick = [&random](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  proofs::ExtentIndex<Thing> index;
  std::vector<Thing> all;
  for (int trial = 0; trial < 5000; ++trial) {
    const int64_t begin = pick(0, 1000);
    const Thing thing{begin, begin + 1 + pick(0, 1) * pick(0, 300) + pick(0, 8)};
    const bool erases = trial % 3 == 0;
    size_t found = 0;
    index.visit(thing.from, thing.to, [&](const Thing&) { return ++found, !erases; });
    const auto overlaps = [&](const Thing& t) { return t.from < thing.to && thing.from < t.to; };
    ASSERT_EQ(found, static_cast<size_t>(std::count_if(all.begin(), all.end(), overlaps)));
    if (erases) std::erase_if(all, overlaps);
    index.insert(thing);
    all.push_back(thing);
  }
}

}  // namespace
}  // namespace evenspan
