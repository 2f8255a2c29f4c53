// The reading half of the text form; print.cc is the writing half and docs/plan_format.md the description.
//
// Text is refused here when it is no plan: a header that the planner would refuse, a reference to a rank or document
// that does not exist, numbers beyond all bounds. What is wrong inside programs is left to verify(). Memory is taken in
// proportion to the text, never to a number in it.
#include <string>
#include <string_view>
#include <utility>

#include "evenspan/core/error.h"
#include "plan/strategy/strategy.h"
#include "plan/text/format.h"
#include "plan/text/scanner.h"

namespace evenspan::plan {
namespace {

// Bounds that real plans keep far from, so that sums and products of what was read do not overflow later.
constexpr int64_t kMostRows = int64_t{1} << 31;
constexpr int64_t kMostHeads = int64_t{1} << 20;
constexpr int64_t kMostStride = int64_t{1} << 26;  // elements
constexpr int64_t kMostBytes = int64_t{1} << 60;
constexpr int64_t kMostInt32 = 0x7fffffff;

class Parser {
 public:
  Parser(NextLine next, ProgramLines* lines) : in_(std::move(next)), lines_(lines) {}

  // The fields of operations (operation/traits.h).
  void block(Block& block, Access) {
    one_of(kNumTensorNames, "a tensor", &block.tensor);
    block.precision = in_.accept(".acc") ? Precision::accumulation : Precision::input;
    in_.expect("@");
    block.buffer = buffer();
    in_.expect("+");
    block.offset_bytes = in_.integer("an offset in bytes", -kMostBytes, kMostBytes);
    in_.expect("/");
    block.row_stride = in_.integer("a row stride in elements", -kMostStride, kMostStride);
    block.document = document();
    block.rows = span();
    block.heads = heads();
  }
  void optional(std::string_view sign, std::optional<Block>& block, Access access) {
    if (in_.accept(sign)) this->block(block.emplace(), access);
  }
  void blocks(std::vector<Block>& blocks, Access access) {
    if (in_.at_line_end() || in_.at("|")) return;
    do {
      block(blocks.emplace_back(), access);
    } while (in_.accept(","));
  }
  template <class Uses>
  void part(Part& part, const Uses&) {
    part.document = document();
    part.rows = span();
    in_.expect("@");
    part.home_row = in_.integer("a home row", 0, kMostRows);
  }
  void sign(std::string_view sign) { in_.expect(sign); }
  template <class T>
  void choice(T& value, std::string_view first, std::string_view second) {
    value = static_cast<T>(in_.accept(second));
    if (value == T{} && !in_.accept(first)) in_.fail_expected(join_text('"', first, "\" or \"", second, '"'));
  }
  void word(bool& flag, std::string_view word) { flag = in_.accept_word(word); }
  void tile(TileKind& kind, int64_t& window) {
    one_of(4, "full, causal, window or band", &kind);
    if (in_.accept(":")) window = in_.integer("a window", -kMostRows, kMostRows);
  }
  void peer(Rank& peer) { peer = Rank(in_.integer("a rank", 0, num_ranks_ - 1)); }

  LoweredPlan parse() {
    LoweredPlan plan;
    version();
    header(&plan.request);
    num_documents_ = plan.request.documents.size();
    num_ranks_ = plan.request.num_ranks();
    plan.placement = placement(plan.request.documents);
    for (int64_t r = 0; r < num_ranks_; ++r) plan.programs.push_back(rank(r));
    in_.expect_word("end");
    if (in_.next_line()) in_.fail_expected("nothing after \"end\"");
    return plan;
  }

 private:
  // The lines of the header, each of which ends by going to the next one.
  void next_line(std::string_view what) {
    if (!in_.next_line()) in_.fail_expected(what);
  }

  // " name=" before a value.
  void field(std::string_view name) {
    in_.expect_word(name);
    in_.expect("=");
  }
  int64_t integer_field(std::string_view name, int64_t least, int64_t most) {
    field(name);
    return in_.integer(name, least, most);
  }
  int32_t int32_field(std::string_view name) { return static_cast<int32_t>(integer_field(name, 0, kMostInt32)); }
  double number_field(std::string_view name) {
    field(name);
    return in_.number(name);
  }

  // What the core's own validation says, with the line that it speaks of.
  template <class F>
  auto checked(int64_t line, F&& f) {
    try {
      return f();
    } catch (const Error& error) {
      in_.fail_at(line, error.what());
    }
  }

  void version() {
    next_line("\"evenspan plan\" and a version");
    in_.expect_word("evenspan");
    in_.expect_word("plan");
    const int64_t version = in_.integer("the version of the text form", 0, kMostInt32);
    if (version != kTextVersion) {
      in_.fail_at(in_.line(),
                  join_text("this plan has version ", version, " of the text form; this program reads version ",
                            kTextVersion, ", print the plan again with it"));
    }
    next_line("\"documents\"");
  }

  void header(Request* request) {
    const int64_t first = in_.line();
    request->documents = documents();
    in_.expect_word("shape");
    AttentionShape& shape = request->shape;
    shape.num_heads = int32_field("heads");
    shape.num_kv_heads = int32_field("kv_heads");
    shape.head_dim = int32_field("head_dim");
    field("element");
    const std::string element(in_.word("an element type"));
    shape.element = checked(in_.line(), [&] { return parse_element_type(element); });
    next_line("\"states\" or \"topology\"");
    if (in_.accept_word("states")) {
      shape.state.value_dim = static_cast<int32_t>(integer_field("value_dim", 1, kMostInt32));
      field("gate");
      one_of(4, "none, head, token or channel", &shape.state.gate);
      shape.state.delta_rule = integer_field("delta_rule", 0, 1) == 1;
      shape.state.initial = integer_field("initial", 0, 1) == 1;
      shape.state.final = integer_field("final", 0, 1) == 1;
      next_line("\"topology\"");
    }
    in_.expect_word("topology");
    Topology& topology = request->topology;
    topology.num_ranks = int32_field("ranks");
    next_line("\"level\"");
    while (in_.accept_word("level")) {
      Level& level = topology.levels.emplace_back();
      level.group_size = int32_field("ranks");
      level.latency_seconds = number_field("latency_seconds");
      level.bytes_per_second = number_field("bytes_per_second");
      next_line("\"level\" or \"cost\"");
    }
    in_.expect_word("cost");
    request->cost.pair_seconds = number_field("pair_seconds");
    request->cost.token_seconds = number_field("token_seconds");
    next_line("\"options\"");
    in_.expect_word("options");
    Options& options = request->options;
    field("strategy");
    options.strategy = in_.word("the name of a strategy");
    options.token_slack = number_field("token_slack");
    options.ranks_per_group = int32_field("ranks_per_group");
    options.stripe_tokens = integer_field("stripe_tokens", 0, kMostBytes);
    options.memory_budget_bytes = integer_field("memory_budget_bytes", 0, kMostBytes);
    checked(in_.line(), [&] { find_strategy(options.strategy); });
    checked(first, [&] { validate(*request); });
    next_line("\"placement\"");
  }

  Documents documents() {
    const int64_t first = in_.line();
    std::vector<Document> all;
    do {
      in_.expect_word("documents");
      const auto number = static_cast<int64_t>(all.size());
      in_.integer("the number of the line's first document", number, number);
      const std::string mask_text(in_.word("a mask"));
      const Mask mask = checked(in_.line(), [&] { return parse_mask(mask_text); });
      do {
        all.push_back(Document{in_.integer("the length of a document", 0, kMostRows), mask});
      } while (!in_.at_line_end());
      next_line("\"documents\" or \"shape\"");
    } while (in_.at_word("documents"));
    return checked(first, [&] { return Documents(std::move(all)); });
  }

  Placement placement(const Documents& documents) {
    const int64_t first = in_.line();
    std::vector<std::vector<PlacedSpan>> spans;
    for (int64_t r = 0; r < num_ranks_; ++r) {
      in_.expect_word("placement");
      in_.integer("the next rank", r, r);
      auto& own = spans.emplace_back();
      while (!in_.at_line_end()) own.push_back(PlacedSpan{document(), span()});
      next_line("\"placement\" or \"rank\"");
    }
    const Placement placement = checked(first, [&] { return Placement(documents, spans); });
    for (int64_t r = 0; r < num_ranks_; ++r) {
      if (placement.spans(Rank(r)) != spans[static_cast<size_t>(r)]) {
        in_.fail_at(first, join_text("the spans of rank ", r,
                                     " are not in order; they are sorted by document and position, not empty, and "
                                     "neighbours are joined"));
      }
    }
    return placement;
  }

  RankProgram rank(int64_t number) {
    in_.expect_word("rank");
    in_.integer("the next rank", number, number);
    RankProgram program;
    next_line("\"buffer\" or \"phase\"");
    while (in_.accept_word("buffer")) {
      const BufferId next = static_cast<BufferId>(program.buffers.size());
      if (buffer() != next || program.buffers.size() > 255) {
        in_.fail_at(in_.line(), join_text("the buffers of a rank come in order, and ", to_string(next), " is next"));
      }
      Buffer& declared = program.buffers.emplace_back();
      one_of(kNumLifetimes, "caller, phase or step", &declared.lifetime);
      declared.bytes = integer_field("bytes", 0, kMostBytes);
      next_line("\"buffer\" or \"phase\"");
    }
    auto& lines = lines_->ranks.emplace_back();
    while (in_.accept_word("phase")) program.phases.push_back(phase(&lines));
    if (!in_.at_word("rank") && !in_.at_word("end")) {
      in_.fail_expected("an operation, \"phase\", \"rank\" or \"end\"");
    }
    return program;
  }

  Phase phase(std::array<std::vector<int64_t>, kNumPhaseKinds>* lines) {
    Phase phase;
    one_of(kNumPhaseKinds, "forward, recompute or backward", &phase.kind);
    in_.next_line();
    Operation operation;
    while (this->operation(&operation)) {
      (*lines)[static_cast<size_t>(phase.kind)].push_back(in_.line());
      phase.operations.push_back(std::move(operation));
      in_.next_line();
    }
    return phase;
  }

  // False, and nothing taken, when the line holds no operation.
  bool operation(Operation* op) { return body(op, &op->body); }
  template <class... Bodies>
  bool body(Operation* op, std::variant<Bodies...>*) {
    return (body<Bodies>(op) || ...);
  }
  template <class Body>
  bool body(Operation* op) {
    if (!in_.accept_word(Body::kTraits.name)) return false;
    op->waits.clear();
    if (in_.accept_word("after")) {
      do {
        op->waits.push_back(event());
      } while (!in_.at_line_end() && !in_.at("|") && !in_.at_word("signals"));
    }
    op->signals = in_.accept_word("signals") ? event() : kNoEvent;
    Body body;
    while (in_.accept("|")) Body::visit(*this, body.items.emplace_back());
    op->body = std::move(body);
    return true;
  }

  Event event() { return static_cast<Event>(in_.integer("the number of an event", 0, kMostInt32)); }

  DocumentId document() {
    in_.expect("d");
    return DocumentId(in_.integer("a document", 0, num_documents_ - 1));
  }

  Span span() {
    Span span;
    in_.expect("[");
    span.begin = in_.integer("a position", -kMostRows, kMostRows);
    in_.expect(":");
    span.end = in_.integer("a position", -kMostRows, kMostRows);
    in_.expect(")");
    return span;
  }

  HeadRange heads() {
    HeadRange heads;
    in_.expect("h");
    in_.expect("[");
    heads.begin = static_cast<int32_t>(in_.integer("a head", -kMostHeads, kMostHeads));
    in_.expect(":");
    heads.end = static_cast<int32_t>(in_.integer("a head", -kMostHeads, kMostHeads));
    in_.expect(")");
    return heads;
  }

  BufferId buffer() {
    constexpr std::string_view kWhat = "home, arena, saved, or buffer and its number";
    const std::string_view name = in_.name(kWhat);
    for (const BufferId id : {BufferId::home, BufferId::arena, BufferId::saved}) {
      if (to_string(id) == name) return id;
    }
    if (name == "buffer") return static_cast<BufferId>(in_.integer("the number of a buffer", kNumNamedBuffers, 255));
    in_.step_back();
    in_.fail_expected(kWhat);
  }

  // Sets `value` to the one of the first `count` of its type whose to_string() comes next.
  template <class E>
  void one_of(int count, std::string_view what, E* value) {
    const std::string_view name = in_.name(what);
    for (int i = 0; i < count; ++i) {
      if (to_string(static_cast<E>(i)) == name) {
        *value = static_cast<E>(i);
        return;
      }
    }
    in_.step_back();
    in_.fail_expected(what);
  }

  Scanner in_;
  ProgramLines* lines_;
  int64_t num_documents_ = 0;
  int64_t num_ranks_ = 0;
};

}  // namespace

int64_t ProgramLines::of(int32_t rank, PhaseKind phase, int32_t operation) const {
  if (rank < 0 || static_cast<size_t>(rank) >= ranks.size()) return 0;
  const auto& lines = ranks[static_cast<size_t>(rank)][static_cast<size_t>(phase)];
  if (operation < 0 || static_cast<size_t>(operation) >= lines.size()) return 0;
  return lines[static_cast<size_t>(operation)];
}

LoweredPlan parse(NextLine next, ProgramLines* lines) {
  *lines = ProgramLines();
  return Parser(std::move(next), lines).parse();
}

NextLine lines_of(const std::string& text) {
  return [&text, begin = size_t{0}](std::string_view* line) mutable {
    if (begin >= text.size()) return false;
    const size_t end = std::min(text.find('\n', begin), text.size());
    *line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    return true;
  };
}

LoweredPlan parse(const std::string& text) {
  ProgramLines lines;
  return parse(lines_of(text), &lines);
}

}  // namespace evenspan::plan
