// The writing half of the text form; parse.cc is the reading half and docs/plan_format.md the description.
#include <charconv>
#include <string>
#include <string_view>
#include <type_traits>

#include "evenspan/plan/text.h"
#include "plan/text/format.h"
#include "plan/visit.h"

namespace evenspan::plan {
namespace {

class Printer {
 public:
  std::string print(const LoweredPlan& plan) {
    line("evenspan plan ", kTextVersion);
    header(plan.request);
    for (int32_t r = 0; r < plan.placement.num_ranks(); ++r) {
      put("placement ", r);
      for (const PlacedSpan& placed : plan.placement.spans(Rank(r))) put(" d", placed.document, placed.span);
      line();
    }
    for (size_t r = 0; r < plan.programs.size(); ++r) {
      const RankProgram& program = plan.programs[r];
      line("rank ", static_cast<int64_t>(r));
      for (size_t b = 1; b < program.buffers.size(); ++b) {
        const auto& [lifetime, bytes] = program.buffers[b];
        line("buffer ", to_string(static_cast<BufferId>(b)), " ", to_string(lifetime), " bytes=", bytes);
      }
      for (const Phase& phase : program.phases) {
        line("phase ", to_string(phase.kind));
        for (const Operation& op : phase.operations) operation(op);
      }
    }
    line("end");
    return std::move(text_);
  }

  // The fields of operations (operation/traits.h), each behind a space.
  void block(const Block& block, Access) {
    put(" ", to_string(block.tensor), block.precision == Precision::accumulation ? ".acc" : "", "@",
        to_string(block.buffer));
    put("+", block.offset_bytes, "/", block.row_stride);
    put(" d", block.document, block.rows);
    put(" h", block.heads);
  }
  void optional(std::string_view sign, const std::optional<Block>& block, Access access) {
    if (!block) return;
    put(" ", sign);
    this->block(*block, access);
  }
  void blocks(const std::vector<Block>& blocks, Access access) {
    for (size_t i = 0; i < blocks.size(); ++i) {
      if (i > 0) put(",");
      block(blocks[i], access);
    }
  }
  template <class Uses>
  void part(const Part& part, const Uses&) {
    put(" d", part.document, part.rows, "@", part.home_row);
  }
  void sign(std::string_view sign) { put(sign == "," ? "" : " ", sign); }
  template <class T>
  void choice(T value, std::string_view first, std::string_view second) {
    put(" ", value == T{} ? first : second);
  }
  void word(bool flag, std::string_view word) {
    if (flag) put(" ", word);
  }
  void tile(TileKind kind, int64_t window) {
    put(" ", to_string(kind));
    if (window != 0) put(":", window);
  }
  void peer(Rank rank) { put(" ", rank); }

 private:
  void put(std::string_view text) { text_ += text; }
  void put(const char* text) { text_ += text; }
  void put(const Span& span) { put("[", span.begin, ":", span.end, ")"); }
  void put(const HeadRange& heads) { put("[", heads.begin, ":", heads.end, ")"); }
  template <class Tag>
  void put(const Id<Tag>& id) {
    put(int64_t{id.value});
  }
  // The shortest text that reads back as the same number.
  template <class T>
  std::enable_if_t<std::is_arithmetic_v<T>> put(T number) {
    char buffer[32];
    const auto result = std::to_chars(buffer, buffer + sizeof(buffer), number);
    text_.append(buffer, result.ptr);
  }
  template <class First, class Second, class... Rest>
  void put(const First& first, const Second& second, const Rest&... rest) {
    put(first);
    (put(second), ..., put(rest));
  }
  template <class... Parts>
  void line(const Parts&... parts) {
    (put(parts), ...);
    text_ += '\n';
  }

  void header(const Request& request) {
    documents(request.documents);
    const AttentionShape& shape = request.shape;
    line("shape heads=", shape.num_heads, " kv_heads=", shape.num_kv_heads, " head_dim=", shape.head_dim,
         " element=", to_string(shape.element));
    if (const StateShape& state = shape.state; shape.is_linear()) {
      line("states value_dim=", state.value_dim, " gate=", to_string(state.gate),
           " delta_rule=", static_cast<int>(state.delta_rule), " initial=", static_cast<int>(state.initial),
           " final=", static_cast<int>(state.final));
    }
    line("topology ranks=", request.topology.num_ranks);
    for (const Level& level : request.topology.levels) {
      line("level ranks=", level.group_size, " latency_seconds=", level.latency_seconds,
           " bytes_per_second=", level.bytes_per_second);
    }
    line("cost pair_seconds=", request.cost.pair_seconds, " token_seconds=", request.cost.token_seconds);
    const Options& options = request.options;
    line("options strategy=", std::string_view(options.strategy), " token_slack=", options.token_slack,
         " ranks_per_group=", options.ranks_per_group, " stripe_tokens=", options.stripe_tokens,
         " memory_budget_bytes=", options.memory_budget_bytes);
  }

  // A line holds the lengths of consecutive documents with one mask.
  void documents(const Documents& documents) {
    constexpr size_t kLengthsPerLine = 16;
    const auto& all = documents.all();
    for (size_t first = 0, last = 0; first < all.size(); first = last) {
      put("documents ", static_cast<int64_t>(first), " ", std::string_view(to_string(all[first].mask)));
      for (; last < all.size() && last < first + kLengthsPerLine && all[last].mask == all[first].mask; ++last) {
        put(" ", all[last].length);
      }
      line();
    }
  }

  void operation(const Operation& op) {
    put("  ", name(op));
    if (!op.waits.empty()) put(" after");
    for (const Event event : op.waits) put(" ", event);
    if (op.signals != kNoEvent) put(" signals ", op.signals);
    std::visit(
        [this](const auto& body) {
          for (const auto& item : body.items) {
            put(" |");
            std::decay_t<decltype(body)>::visit(*this, item);
          }
        },
        op.body);
    line();
  }

  std::string text_;
};

}  // namespace

std::string print(const LoweredPlan& plan) { return Printer().print(plan); }

}  // namespace evenspan::plan
