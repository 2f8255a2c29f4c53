// Plans for the tests of the text form: what the planner never writes, but the text must hold.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "evenspan/plan/program.h"

namespace evenspan::plan {

// A lowered plan with a valid header and placement, and programs of every operation with arbitrary numbers in them:
// nothing in them fits together.
class RandomPlan {
 public:
  explicit RandomPlan(uint64_t seed) : random_(seed) {}

  LoweredPlan operator()() {
    LoweredPlan plan;
    Request& request = plan.request;
    request.documents = documents();
    request.shape = AttentionShape{static_cast<int32_t>(4 * below(4) + 4), 4, static_cast<int32_t>(below(200) + 1),
                                   static_cast<ElementType>(below(4))};
    const auto num_ranks = static_cast<int32_t>(below(6) + 1);
    request.topology = make_topology(num_ranks, static_cast<int32_t>(below(num_ranks + 1)));
    for (Level& level : request.topology.levels) level = Level{level.group_size, fraction(), real()};
    request.cost = CostModel{fraction(), fraction()};
    request.options = Options{"ring", fraction(), 0, below(1000) + 1, below(int64_t{1} << 40)};
    std::vector<std::vector<PlacedSpan>> spans(static_cast<size_t>(num_ranks));
    for (int64_t d = 0; d < request.documents.size(); ++d) {
      const int64_t length = request.documents[DocumentId(d)].length;
      const int64_t cut = below(length + 1);
      spans[static_cast<size_t>(below(num_ranks))].push_back({DocumentId(d), Span{0, cut}});
      spans[static_cast<size_t>(below(num_ranks))].push_back({DocumentId(d), Span{cut, length}});
    }
    plan.placement = Placement(request.documents, spans);
    num_documents_ = request.documents.size();
    num_ranks_ = num_ranks;
    for (int32_t r = 0; r < num_ranks; ++r) {
      plan.programs.push_back(RankProgram{program(), program(), below(int64_t{1} << 50)});
    }
    return plan;
  }

  int64_t below(int64_t most) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(most)); }

 private:
  double fraction() { return std::uniform_real_distribution<double>(1e-9, 1)(random_); }
  double real() { return std::uniform_real_distribution<double>(0, 1)(random_) * (below(2) == 0 ? 1e-9 : 1e12); }

  Documents documents() {
    std::vector<Document> all;
    Mask mask;
    for (int64_t d = below(40) + 1; d > 0; --d) {
      if (below(3) == 0) {
        mask.kind = static_cast<MaskKind>(below(4));
        mask.extent = mask.kind == MaskKind::window || mask.kind == MaskKind::prefix ? below(100) + 1 : 0;
      }
      all.push_back(Document{below(5000) + 1, mask});
    }
    return Documents(std::move(all));
  }

  Block block() {
    Block block;
    block.tensor = static_cast<TensorName>(below(kNumTensorNames));
    block.storage = static_cast<Storage>(below(3));
    block.precision = static_cast<Precision>(below(2));
    block.document = DocumentId(below(num_documents_));
    block.rows = Span{below(100) - 10, below(1000)};
    block.heads = HeadRange{static_cast<int32_t>(below(10) - 1), static_cast<int32_t>(below(10))};
    block.offset_bytes = below(int64_t{1} << 40) - 1000;
    block.row_stride = below(5000) - 5;
    return block;
  }

  template <class T, class F>
  std::vector<T> list(F&& make) {
    std::vector<T> all;
    for (int64_t n = below(4); n > 0; --n) all.push_back(make());
    return all;
  }

  Message message() {
    return Message{Rank(below(num_ranks_)), list<Block>([this] { return block(); })};
  }
  Segment segment() {
    return Segment{static_cast<TileKind>(below(4)),
                   below(2) * below(50),
                   block(),
                   block(),
                   block(),
                   block(),
                   block(),
                   below(2) == 0};
  }
  GradientTarget target() { return GradientTarget{block(), below(2) == 0}; }
  SegmentGradient segment_gradient() { return SegmentGradient{segment(), block(), target(), target(), target()}; }
  BlockPair pair() { return BlockPair{block(), block()}; }

  Operation operation() {
    Operation op;
    op.waits = list<int32_t>([this] { return static_cast<int32_t>(below(9)); });
    const auto messages = [this] { return list<Message>([this] { return message(); }); };
    const auto pairs = [this] { return list<BlockPair>([this] { return pair(); }); };
    switch (below(8)) {
      case 0:
        op.body = Exchange{static_cast<int32_t>(below(9)), messages(), messages()};
        break;
      case 1:
        op.body = Attend{list<Segment>([this] { return segment(); })};
        break;
      case 2:
        op.body = AttendGradient{list<SegmentGradient>([this] { return segment_gradient(); })};
        break;
      case 3:
        op.body = Copy{pairs()};
        break;
      case 4:
        op.body = Accumulate{pairs()};
        break;
      case 5:
        op.body = Merge{list<PartialPair>([this] { return PartialPair{block(), block(), block(), block()}; })};
        break;
      case 6:
        op.body = Delta{list<DeltaRows>([this] { return DeltaRows{block(), block(), block()}; })};
        break;
      default:
        op.body = Clear{list<Block>([this] { return block(); })};
    }
    return op;
  }

  Program program() {
    Program program;
    for (int64_t n = below(12); n > 0; --n) program.operations.push_back(operation());
    program.arena_bytes = below(int64_t{1} << 45);
    return program;
  }

  std::mt19937_64 random_;
  int64_t num_documents_ = 1;
  int64_t num_ranks_ = 1;
};

}  // namespace evenspan::plan
