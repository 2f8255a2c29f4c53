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
      RankProgram& program = plan.programs.emplace_back();
      for (int64_t kind = 0; kind < kNumPhaseKinds; ++kind) {
        if (below(4) > 0) program.phases.push_back(phase(static_cast<PhaseKind>(kind)));
      }
      for (int64_t n = below(5); n > 0; --n) {
        program.buffers.push_back({static_cast<Lifetime>(below(kNumLifetimes)), below(int64_t{1} << 50)});
      }
    }
    return plan;
  }

  // The fields of operations (operation/traits.h), each of which gets a random value.
  void block(Block& block, Access) { block = random_block(); }
  void optional(std::string_view, std::optional<Block>& block, Access) {
    block = below(2) == 0 ? std::optional(random_block()) : std::nullopt;
  }
  void blocks(std::vector<Block>& blocks, Access) {
    blocks = list<Block>([this] { return random_block(); });
  }
  template <class Uses>
  void part(Part& part, const Uses&) {
    part = {DocumentId(below(num_documents_)), Span{below(100), below(1000)}, below(50)};
  }
  void sign(std::string_view) {}
  template <class T>
  void choice(T& value, std::string_view, std::string_view) {
    value = static_cast<T>(below(2));
  }
  void word(bool& flag, std::string_view) { flag = below(2) == 0; }
  void tile(TileKind& kind, int64_t& window) {
    kind = static_cast<TileKind>(below(4));
    window = below(2) * below(50);
  }
  void peer(Rank& peer) { peer = Rank(below(num_ranks_)); }

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

  Block random_block() {
    Block block;
    block.tensor = static_cast<TensorName>(below(kNumTensorNames));
    block.buffer = static_cast<BufferId>(below(6));
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

  template <class... Bodies>
  Operation operation(std::variant<Bodies...>*) {
    Operation op;
    op.waits = list<Event>([this] { return static_cast<Event>(below(9)); });
    if (below(2) == 0) op.signals = static_cast<Event>(below(9));
    auto chosen = below(sizeof...(Bodies));
    ((chosen-- == 0 ? fill(&op.body.emplace<Bodies>()) : void()), ...);
    return op;
  }
  template <class Body>
  void fill(Body* body) {
    body->items.resize(static_cast<size_t>(below(4)));
    for (auto& item : body->items) Body::visit(*this, item);
  }

  Phase phase(PhaseKind kind) {
    Phase phase{kind, {}};
    for (int64_t n = below(12); n > 0; --n) {
      phase.operations.push_back(operation(static_cast<decltype(Operation::body)*>(nullptr)));
    }
    return phase;
  }

  std::mt19937_64 random_;
  int64_t num_documents_ = 1;
  int64_t num_ranks_ = 1;
};

}  // namespace evenspan::plan
