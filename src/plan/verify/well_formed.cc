// What must hold before any proof can begin: everything that a parsed text can break. Findings carry the proof that
// could not even start.
#include <algorithm>
#include <unordered_set>

#include "evenspan/plan/linear.h"
#include "plan/verify/homes.h"
#include "plan/verify/linear_form.h"
#include "plan/verify/proof.h"
#include "plan/visit.h"

namespace evenspan::plan::proofs {
namespace {

constexpr int64_t kMaxBytes = int64_t{1} << 60;

// a * b + c, or nothing when that is more than kMaxBytes. REQUIRES: none is negative.
bool fits(int64_t a, int64_t b, int64_t c, int64_t* sum) {
  return !__builtin_mul_overflow(a, b, sum) && !__builtin_add_overflow(*sum, c, sum) && *sum <= kMaxBytes;
}

void check_request(const LoweredPlan& plan) {
  const AttentionShape& shape = plan.request.shape;
  if (shape.num_heads < 1 || shape.num_kv_heads < 1 || shape.head_dim < 1 ||
      shape.num_heads % shape.num_kv_heads != 0 || shape.element > ElementType::f64) {
    refute(Proof::coverage, Site{}, "attention shape has ", shape.num_heads, " heads, ", shape.num_kv_heads,
           " kv heads, head dimension ", shape.head_dim, ", element type ", static_cast<int>(shape.element),
           "; all are positive, kv heads divide heads, the type is known");
  }
  int64_t token_bytes = 0;
  if (!fits(shape.num_heads, int64_t{shape.head_dim} * 8, 0, &token_bytes)) {
    refute(Proof::coverage, Site{}, shape.num_heads, " heads of ", shape.head_dim, " are too large");
  }
  if (shape.state.value_dim < 0 || shape.state.gate > Gate::channel ||
      (shape.is_linear() && shape.num_kv_heads != shape.num_heads) ||
      !fits(token_bytes, std::max(shape.head_dim, shape.state.value_dim), 0, &token_bytes)) {
    refute(Proof::coverage, Site{}, "states have value dimension ", shape.state.value_dim, ", gate ",
           static_cast<int>(shape.state.gate), ", ", shape.num_kv_heads, " kv heads for ", shape.num_heads,
           " heads; a linear layer has as many of both");
  }
  const Documents& documents = plan.request.documents;
  if (documents.size() == 0) refute(Proof::coverage, Site{}, "there are no documents");
  for (int64_t d = 0; d < documents.size(); ++d) {
    const Document& document = documents[DocumentId(d)];
    int64_t bytes = 0;
    if (document.length < 1 || !fits(document.length, token_bytes, 0, &bytes)) {
      refute(Proof::coverage, Site{}, "document ", d, " has ", document.length, " tokens");
    }
    const auto [kind, extent] = document.mask;
    if (kind > MaskKind::prefix || extent < 0 || (kind == MaskKind::window && extent < 1)) {
      refute(Proof::coverage, Site{}, "document ", d, " has mask ", static_cast<int>(kind), " of extent ", extent);
    }
  }
  if (const DocumentId ahead = first_looking_ahead(documents); shape.is_linear() && ahead >= 0) {
    refute(Proof::coverage, Site{}, "document ", ahead, " has mask ", to_string(documents[ahead].mask),
           " in a plan of a linear layer, whose tokens see none after them");
  }
  const auto num_programs = static_cast<int64_t>(plan.programs.size());
  if (num_programs < 1 || num_programs != plan.request.num_ranks() || num_programs != plan.placement.num_ranks()) {
    refute(Proof::matching, Site{}, num_programs, " programs for ", plan.request.num_ranks(),
           " ranks and a placement on ", plan.placement.num_ranks());
  }
  const auto wanted = phases_of(shape);
  for (int32_t rank = 0; rank < num_programs; ++rank) {
    const auto& phases = plan.programs[static_cast<size_t>(rank)].phases;
    const auto same = [](const Phase& phase, PhaseKind kind) { return phase.kind == kind; };
    if (std::equal(phases.begin(), phases.end(), wanted.begin(), wanted.end(), same)) continue;
    std::string listed, expected;
    for (const Phase& phase : phases) listed += join_text(" ", to_string(phase.kind));
    for (const PhaseKind kind : wanted) expected += join_text(" ", to_string(kind));
    refute(Proof::matching, Site{rank}, "the phases are", listed.empty() ? " none" : listed, "; a ",
           shape.is_linear() ? "linear" : "softmax", " layer has", expected);
  }
}

class Checker {
 public:
  explicit Checker(const LoweredPlan& plan)
      : plan_(plan),
        shape_(plan.request.shape),
        sizes_(plan.request.shape),
        homes_(plan.request.documents, plan.placement),
        linear_(plan, homes_) {}

  void rank(int32_t rank) {
    program_ = &plan_.programs[static_cast<size_t>(rank)];
    const auto& buffers = program_->buffers;
    const Buffer undeclared{static_cast<Lifetime>(kNumLifetimes), 0};
    for (size_t b = 0; b < std::max<size_t>(buffers.size(), 1); ++b) {
      const auto& [lifetime, bytes] = b < buffers.size() ? buffers[b] : undeclared;
      const bool callers = lifetime == Lifetime::caller;
      if (callers == (b == 0) && lifetime <= Lifetime::step && bytes >= 0) continue;
      refute(Proof::memory, Site{rank}, to_string(static_cast<BufferId>(b)), " has ", bytes,
             " bytes, which is not negative, and the lifetime ", static_cast<int>(lifetime),
             ": the caller's for home, and for nothing else");
    }
    for (const Phase& phase : program_->phases) this->phase(rank, phase);
  }

 private:
  void phase(int32_t rank, const Phase& phase) {
    std::unordered_set<Event> events;
    for (size_t i = 0; i < phase.operations.size(); ++i) {
      site_ = Site{rank, static_cast<int32_t>(i), phase.kind};
      linear_.at(site_);
      operation(phase.operations[i], &events);
    }
  }

  void operation(const Operation& operation, std::unordered_set<Event>* events) {
    for (const Event event : operation.waits) {
      if (!events->contains(event)) {
        refute(Proof::matching, site_, "waits for event ", event, ", which no operation before it signals");
      }
    }
    const OperationTraits& traits = plan::traits(operation);
    if ((operation.signals != kNoEvent) != traits.starts) {
      refute(Proof::matching, site_, traits.name, traits.starts ? " signals no event" : " signals an event",
             "; what goes on beside other operations signals one, and nothing else does");
    }
    if (traits.starts && !events->insert(operation.signals).second) {
      refute(Proof::matching, site_, "signals event ", operation.signals, ", as an operation before it does");
    }
    if (traits.layers != Layers::all && (traits.layers == Layers::linear) != shape_.is_linear()) {
      refute(Proof::coverage, site_, traits.name, " is no operation of a ", shape_.is_linear() ? "linear" : "softmax",
             " layer");
    }
    if (traits.passes != Passes::both && (traits.passes == Passes::backward) != site_.in_backward()) {
      refute(Proof::coverage, site_, traits.name, " is no operation of the ", to_string(site_.phase), " phase");
    }
    std::visit(
        [&](const auto& body) {
          using Body = std::remove_cvref_t<decltype(body)>;
          for (const auto& item : body.items) {
            if constexpr (requires { item.part; }) linear_.check_part(item.part);
            for_each_block_of<Body>(item, shape_, [&](const Block& block, Access access) {
              if (shape_.is_linear() && traits.layers == Layers::all && !is_state(block.tensor)) {
                refute(Proof::dataflow, site_, traits.name, " has ", describe(block),
                       "; rows of a linear layer stay at home");
              }
              check_block(block, access);
            });
            if constexpr (Body::kTraits.layers == Layers::linear) {
              linear_.check(item);
            } else {
              check(body, item);
            }
          }
        },
        operation.body);
  }

  void check(const Exchange&, const Message& message) const { check_message(message); }
  void check(const Copy&, const BlockPair& pair) const { check_pair(pair); }
  void check(const Accumulate&, const BlockPair& pair) const {
    check_pair(pair);
    if (!is_gradient(pair.to.tensor)) {
      refute(Proof::dataflow, site_, "adds ", describe(pair.from),
             "; only gradients are added, outputs fold with their log-sum-exp");
    }
  }
  void check(const Clear&, const Block& block) const {
    if (!is_partial(block.tensor)) {
      refute(Proof::dataflow, site_, "clears ", describe(block), ", which is no partial");
    }
  }

  void check_block(const Block& block, Access access) const {
    if (static_cast<int>(block.tensor) >= kNumTensorNames ||
        static_cast<size_t>(block.buffer) >= program_->buffers.size() || block.precision > Precision::accumulation) {
      refute(Proof::dataflow, site_, "a block has tensor ", static_cast<int>(block.tensor), ", buffer ",
             static_cast<int>(block.buffer), " of ", program_->buffers.size(), ", precision ",
             static_cast<int>(block.precision));
    }
    if (site_.phase == PhaseKind::recompute && access != Access::read &&
        program_->buffer(block.buffer).lifetime == Lifetime::step) {
      refute(Proof::dataflow, site_, describe(block), " is written; recomputing leaves what is saved as it is");
    }
    if (block.document < 0 || block.document >= plan_.request.documents.size()) {
      refute(Proof::dataflow, site_, describe(block), ": the batch has ", plan_.request.documents.size(), " documents");
    }
    const int64_t length = plan_.request.documents[block.document].length;
    if (is_state(block.tensor)) {
      linear_.check_state(block, access);
      check_address(block);
      if (block.buffer == BufferId::home) linear_.check_home(block);
      return;
    }
    if (sizes_.width(block.tensor) == 0) {
      refute(Proof::dataflow, site_, describe(block), ", which a layer of this shape has not");
    }
    if (block.rows.begin < 0 || block.rows.empty() || block.rows.end > length) {
      refute(Proof::dataflow, site_, describe(block), ": rows are empty or outside the document's ", length);
    }
    const int32_t num_heads = sizes_.num_heads(block.tensor);
    if (block.heads.begin < 0 || block.heads.empty() || block.heads.end > num_heads) {
      refute(Proof::dataflow, site_, describe(block), ": heads are empty or outside the tensor's ", num_heads);
    }
    if (is_number(block.tensor) && block.precision != Precision::accumulation) {
      refute(Proof::dataflow, site_, describe(block), ": log-sum-exp and delta have the accumulation type");
    }
    check_address(block);
    if (block.buffer == BufferId::home) check_home(block, access);
  }

  void check_address(const Block& block) const {
    const int64_t bytes = sizes_.element_bytes(block.precision);
    const int64_t row = block.heads.size() * sizes_.width(block.tensor);
    int64_t elements = 0;
    int64_t end = 0;
    if (block.offset_bytes < 0 || block.row_stride < 0 || (num_rows(block) > 1 && block.row_stride < row) ||
        block.offset_bytes % bytes != 0 || !fits(num_rows(block), block.row_stride, row, &elements) ||
        !fits(elements, bytes, block.offset_bytes, &end)) {
      refute(Proof::memory, site_, describe(block), ", row stride ", block.row_stride,
             ": no address; offsets are multiples of ", bytes, ", strides at least ", row);
    }
  }

  void check_home(const Block& block, Access access) const {
    const bool input = !is_partial(block.tensor) && (site_.in_backward() || block.tensor != TensorName::grad_output);
    const bool result = is_gradient(block.tensor) ? site_.in_backward() : block.tensor == TensorName::output;
    const bool written = access != Access::read;
    const bool final_output = site_.in_backward() && block.tensor == TensorName::output;
    if (written ? !result || final_output : !input && !result) {
      refute(Proof::dataflow, site_, describe(block), " is ", written ? "written" : "read", ", which the ",
             to_string(site_.phase), " phase must not");
    }
    if (block.precision != home_precision(block.tensor)) {
      refute(Proof::dataflow, site_, describe(block), ": at home it has the ",
             home_precision(block.tensor) == Precision::input ? "input" : "accumulation", " type");
    }
    const int64_t row = homes_.row_of(site_.rank, block.document, block.rows);
    if (row < 0) refute(Proof::memory, site_, describe(block), ": the rank is not home to these rows");
    const int64_t num_heads = sizes_.num_heads(block.tensor);
    const int64_t offset = (row * num_heads + block.heads.begin) * sizes_.head_bytes(block.tensor, block.precision);
    const int64_t stride = num_heads * sizes_.width(block.tensor);
    if (block.offset_bytes != offset || (block.rows.size() > 1 && block.row_stride != stride)) {
      refute(Proof::memory, site_, describe(block), ", row stride ", block.row_stride, ": its home is at byte ", offset,
             " with row stride ", stride);
    }
  }

  void check_message(const Message& message) const {
    if (message.peer < 0 || message.peer >= plan_.request.num_ranks() || message.peer == site_.rank) {
      refute(Proof::matching, site_, "a message has peer ", message.peer, "; peers are the other ranks of ",
             plan_.request.num_ranks());
    }
    if (message.blocks.empty()) refute(Proof::matching, site_, "the message with rank ", message.peer, " has no block");
    const Block* before = nullptr;
    for (const Block& block : message.blocks) {
      if (!sizes_.area(block).dense()) {
        refute(Proof::matching, site_, describe(block), ", row stride ", block.row_stride,
               ", travels but is not dense");
      }
      if (before &&
          (before->buffer != block.buffer || (block.buffer == BufferId::home && before->tensor != block.tensor) ||
           sizes_.area(*before).end() != block.offset_bytes)) {
        refute(Proof::matching, site_, describe(block),
               " is not back to back with the block before it in its message, ", describe(*before));
      }
      before = &block;
    }
  }

  void check_pair(const BlockPair& pair) const {
    const auto& [to, from] = pair;
    if (to.tensor != from.tensor || to.document != from.document || to.rows != from.rows || to.heads != from.heads) {
      refute(Proof::dataflow, site_, describe(from), " and ", describe(to), " are not the same part of one tensor");
    }
  }

  void check_operand(const Block& block, TensorName tensor, Precision precision, const Block& like) const {
    if (block.tensor != tensor || block.precision != precision) {
      refute(Proof::coverage, site_, "a segment has ", describe(block), " as its ", to_string(tensor),
             precision == Precision::input ? " of the input type" : " of the accumulation type");
    }
    if (block.document != like.document || block.rows != like.rows || block.heads != like.heads) {
      refute(Proof::coverage, site_, "a segment has ", describe(block), " beside ", describe(like));
    }
  }

  // As check_operand, of any precision, for operations on rows that are no segment.
  void check_part(const Block& block, TensorName tensor, const Block& like) const {
    if (block.tensor == tensor && block.document == like.document && block.rows == like.rows &&
        block.heads == like.heads) {
      return;
    }
    refute(Proof::dataflow, site_, describe(block), " is not the ", to_string(tensor), " of the rows and heads of ",
           describe(like));
  }

  void check(const Merge&, const PartialPair& pair) const {
    check_part(pair.output, TensorName::output, pair.output);
    check_part(pair.lse, TensorName::lse, pair.output);
    check_part(pair.from_output, TensorName::output, pair.output);
    check_part(pair.from_lse, TensorName::lse, pair.output);
  }

  void check(const Delta&, const DeltaRows& rows) const {
    check_part(rows.output, TensorName::output, rows.output);
    check_part(rows.grad_output, TensorName::grad_output, rows.output);
    check_part(rows.delta, TensorName::delta, rows.output);
  }

  // What kernels demand, see design.md: none empty, causal ones square, whole kv groups or a part of one, no row
  // without a key.
  void check_segment(const Segment& segment) const {
    check_operand(segment.query, TensorName::query, Precision::input, segment.query);
    check_operand(segment.key, TensorName::key, Precision::input, segment.key);
    check_operand(segment.value, TensorName::value, Precision::input, segment.key);
    const Block& query = segment.query;
    const Block& key = segment.key;
    const auto refuse = [&](const auto&... reason) {
      refute(Proof::coverage, site_, "the segment of ", describe(query), " and ", describe(key), reason...);
    };
    if (query.document != key.document) refuse(" crosses a border between documents");
    if (key.heads != shape_.kv_heads(query.heads)) {
      refuse(" needs kv heads ", describe(shape_.kv_heads(query.heads)));
    }
    const int32_t group = shape_.group_size();
    const bool whole_groups = query.heads.begin % group == 0 && query.heads.end % group == 0;
    if (!whole_groups && key.heads.size() != 1) refuse(" mixes parts of kv groups of ", group, " heads");
    check_kind(segment, refuse);
  }

  template <class Refuse>
  void check_kind(const Segment& segment, const Refuse& refuse) const {
    const Span queries = segment.query.rows;
    const Span keys = segment.key.rows;
    if (segment.kind > TileKind::band) refuse(" has kind ", static_cast<int>(segment.kind));
    if (segment.kind == TileKind::causal && queries != keys) refuse(" is causal and not square");
    if (segment.kind == TileKind::window || segment.kind == TileKind::band) {
      if (segment.window < 1) refuse(" has window ", segment.window);
      if (segment.window < queries.end - keys.end + 1) {
        refuse(" with window ", segment.window, " has no key for query ", queries.end - 1);
      }
    }
    if (segment.kind == TileKind::band && keys.begin > queries.begin) {
      refuse(" is a band without a key for query ", queries.begin);
    }
  }

  void check(const Attend&, const ForwardSegment& segment) const {
    check_operand(segment.output, TensorName::output, segment.output.precision, segment.query);
    check_operand(segment.lse, TensorName::lse, Precision::accumulation, segment.query);
    check_segment(segment);
  }

  void check(const AttendGradient&, const BackwardSegment& segment) const {
    if (segment.output.tensor == TensorName::delta) {
      check_operand(segment.output, TensorName::delta, Precision::accumulation, segment.query);
    } else {
      check_operand(segment.output, TensorName::output, Precision::input, segment.query);
    }
    check_operand(segment.lse, TensorName::lse, Precision::accumulation, segment.query);
    check_operand(segment.grad_output, TensorName::grad_output, Precision::input, segment.query);
    check_segment(segment);
    const auto target = [&](const GradientTarget& target, TensorName tensor, const Block& like) {
      check_operand(target.block, tensor, target.block.precision, like);
    };
    target(segment.grad_query, TensorName::grad_query, segment.query);
    target(segment.grad_key, TensorName::grad_key, segment.key);
    target(segment.grad_value, TensorName::grad_value, segment.key);
  }

  const LoweredPlan& plan_;
  const AttentionShape& shape_;
  Sizes sizes_;
  Homes homes_;
  LinearForm linear_;
  const RankProgram* program_ = nullptr;  // of the rank that is checked
  Site site_;
};

}  // namespace

void prove_well_formed(const LoweredPlan& plan) {
  check_request(plan);
  Checker checker(plan);
  for (int32_t rank = 0; rank < plan.request.num_ranks(); ++rank) {
    checker.rank(rank);
  }
}

}  // namespace evenspan::plan::proofs
