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
      line("rank ", static_cast<int64_t>(r), " saved_bytes=", program.saved_bytes);
      line("forward arena_bytes=", program.forward.arena_bytes);
      for (const Operation& op : program.forward.operations) operation(op);
      line("backward arena_bytes=", program.backward.arena_bytes);
      for (const Operation& op : program.backward.operations) operation(op);
    }
    line("end");
    return std::move(text_);
  }

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
      line("states value_dim=", state.value_dim, " transition=", to_string(state.transition),
           " initial=", static_cast<int>(state.initial), " final=", static_cast<int>(state.final));
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

  void block(const Block& block) {
    put(to_string(block.tensor), block.precision == Precision::accumulation ? ".acc" : "", "@",
        to_string(block.storage));
    put("+", block.offset_bytes, "/", block.row_stride);
    put(" d", block.document, block.rows);
    put(" h", block.heads);
  }

  void blocks(const std::vector<Block>& blocks) {
    for (size_t i = 0; i < blocks.size(); ++i) {
      put(i == 0 ? " " : ", ");
      block(blocks[i]);
    }
  }

  void messages(const char* direction, const std::vector<Message>& messages) {
    for (const Message& message : messages) {
      put(" | ", direction, " ", message.peer);
      blocks(message.blocks);
    }
  }

  void operands(const Segment& segment) {
    put(" | ", to_string(segment.kind));
    if (segment.window != 0) put(":", segment.window);
    for (const Block* operand : {&segment.query, &segment.key, &segment.value}) {
      put(" ");
      block(*operand);
    }
  }

  void part(const Part& part) { put(" | d", part.document, part.rows, "@", part.home_row); }

  void composition(const Composition& c) {
    put(" | ");
    block(c.to);
    put(" <- ");
    block(c.far);
    put(", ");
    block(c.near);
    optional(" *", c.near_transition);
    if (!c.to_transition || !c.far_transition) return;
    optional(" and", c.to_transition);
    optional(" <-", c.far_transition);
  }

  void optional(const char* sign, const std::optional<Block>& whole) {
    if (!whole) return;
    put(sign, " ");
    block(*whole);
  }

  void gradient(const GradientTarget& target) {
    put(target.add ? " +> " : " -> ");
    block(target.block);
  }

  void pairs(std::string_view sign, const std::vector<BlockPair>& pairs) {
    for (const BlockPair& pair : pairs) {
      put(" | ");
      block(pair.to);
      put(" ", sign, " ");
      block(pair.from);
    }
  }

  void head(const char* name, const Operation& op) {
    put("  ", name);
    if (const auto* exchange = std::get_if<Exchange>(&op.body)) put(" ", exchange->id);
    if (op.waits.empty()) return;
    put(" after");
    for (const int32_t id : op.waits) put(" ", id);
  }

  void operation(const Operation& op) {
    std::visit(Overloaded{
                   [&](const Exchange& exchange) {
                     head("exchange", op);
                     messages("to", exchange.sends);
                     messages("from", exchange.receives);
                   },
                   [&](const Attend& attend) {
                     head("attend", op);
                     for (const Segment& segment : attend.segments) {
                       operands(segment);
                       put(segment.fold ? " +> " : " -> ");
                       block(segment.output);
                       put(" ");
                       block(segment.lse);
                     }
                   },
                   [&](const AttendGradient& attend) {
                     head("attend_gradient", op);
                     for (const SegmentGradient& segment : attend.segments) {
                       operands(segment.forward);
                       put(segment.forward.fold ? " <+" : " <-");
                       for (const Block* read : {&segment.forward.output, &segment.forward.lse, &segment.grad_output}) {
                         put(" ");
                         block(*read);
                       }
                       gradient(segment.grad_query);
                       gradient(segment.grad_key);
                       gradient(segment.grad_value);
                     }
                   },
                   [&](const Copy& copy) {
                     head("copy", op);
                     pairs("<-", copy.pairs);
                   },
                   [&](const Accumulate& accumulate) {
                     head("accumulate", op);
                     pairs("+=", accumulate.pairs);
                   },
                   [&](const Merge& merge) {
                     head("merge", op);
                     for (const PartialPair& pair : merge.pairs) {
                       put(" | ");
                       block(pair.output);
                       put(" ");
                       block(pair.lse);
                       put(" += ");
                       block(pair.from_output);
                       put(" ");
                       block(pair.from_lse);
                     }
                   },
                   [&](const Delta& delta) {
                     head("delta", op);
                     for (const DeltaRows& rows : delta.rows) {
                       put(" | ");
                       block(rows.delta);
                       put(" <- ");
                       block(rows.output);
                       put(" ");
                       block(rows.grad_output);
                     }
                   },
                   [&](const Clear& clear) {
                     head("clear", op);
                     for (const Block& cleared : clear.blocks) {
                       put(" | ");
                       block(cleared);
                     }
                   },
                   [&](const Summarize& summarize) {
                     head("summarize", op);
                     for (const PartSummary& item : summarize.parts) {
                       part(item.part);
                       put(" -> ");
                       block(item.summary);
                       optional(" *", item.transition);
                     }
                   },
                   [&](const Combine& combine) {
                     head("combine", op);
                     for (const Composition& item : combine.compositions) composition(item);
                   },
                   [&](const Intra& intra) {
                     head("intra", op);
                     for (const IntraPart& item : intra.parts) {
                       part(item.part);
                       if (item.pending) put(" pending");
                       optional(" <-", item.state);
                     }
                   },
                   [&](const Apply& apply) {
                     head("apply", op);
                     for (const ApplyPart& item : apply.parts) {
                       part(item.part);
                       optional(" <-", item.state);
                       optional(" <=", item.grad_state);
                     }
                   },
               },
               op.body);
    line();
  }

  std::string text_;
};

}  // namespace

std::string print(const LoweredPlan& plan) { return Printer().print(plan); }

}  // namespace evenspan::plan
