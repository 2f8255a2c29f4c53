#include "plan/lower/linear.h"

#include <algorithm>
#include <cmath>

#include "evenspan/core/error.h"

namespace evenspan::plan {
namespace {

constexpr int32_t kDefaultBlocks = 8;

Chain chain_of(const Plan& plan, const std::vector<Placement::Piece>& pieces, bool backward) {
  Chain chain;
  for (const auto& piece : pieces) {
    chain.ranks.push_back(piece.rank);
    chain.nodes.push_back(piece.rank / plan.request.topology.ranks_per_node());
  }
  if (backward) {
    std::reverse(chain.ranks.begin(), chain.ranks.end());
    std::reverse(chain.nodes.begin(), chain.nodes.end());
  }
  return chain;
}

// A chain of m parts takes (m - 1 + b - 1) (latency + x / b) in b blocks of a state that takes x to send: least at b =
// sqrt((m - 2) x / latency). The level is the slowest that neighbours cross.
ScanOptions scan_options(const Chain& chain, const Topology& topology, const AttentionShape& shape,
                         const StateOptions& options) {
  if (options.blocks > 0) return {shape.num_heads, options.blocks};
  size_t level = 0;
  for (size_t p = 0; p + 1 < chain.ranks.size(); ++p) {
    level = std::max(level, topology.level_between(chain.ranks[p], chain.ranks[p + 1]));
  }
  const auto& [group, latency, bandwidth] = topology.levels[level];
  if (bandwidth <= 0 || latency <= 0) return {shape.num_heads, std::min(kDefaultBlocks, shape.num_heads)};
  const double seconds = static_cast<double>(StateTraffic{1, 0, 1}.bytes(shape)) / bandwidth;
  const double best = std::sqrt((chain.size() - 2) * seconds / latency);
  return {shape.num_heads, std::clamp(static_cast<int32_t>(std::min(best, 1e6)), 1, shape.num_heads)};
}

std::vector<Placement::Piece> pieces_of(const Plan& plan, DocumentId document) {
  const auto homes = plan.placement.homes(document, {0, plan.request.documents[document].length});
  return {homes.begin(), homes.end()};
}

StateTraffic traffic(const Plan& plan, const AttentionShape& shape, const StateOptions& options, bool backward) {
  validate(shape, options);
  const Transport& transport = find_transport(options.transport);
  StateTraffic sum;
  for (int64_t d = 0; d < plan.request.documents.size(); ++d) {
    const auto pieces = pieces_of(plan, DocumentId(d));
    if (pieces.size() < 2) continue;
    const Chain chain = chain_of(plan, pieces, backward);
    const StateTraffic one = transport.traffic(chain, scan_options(chain, plan.request.topology, shape, options));
    sum.states += one.states;
    sum.transitions += one.transitions;
    sum.steps = std::max(sum.steps, one.steps);
  }
  return sum;
}

}  // namespace

DocumentId first_looking_ahead(const Documents& documents) {
  const auto at = std::find_if(documents.all().begin(), documents.all().end(),
                               [](const Document& document) { return allowed_keys(document, 0).end > 1; });
  return at == documents.all().end() ? DocumentId(-1) : DocumentId(at - documents.all().begin());
}

void check_recurrent(const Documents& documents, const char* operation) {
  const DocumentId ahead = first_looking_ahead(documents);
  if (ahead < 0) return;
  fail_invalid("[", operation, "] document ", ahead, " has the mask ", to_string(documents[ahead].mask),
               ", but the state of a linear layer goes from a token to those after it alone; plan with causal (or, for "
               "the placement, window) masks");
}

void validate(const AttentionShape& shape, const StateOptions& options) {
  if (!shape.is_linear() || shape.num_heads < 1 || shape.num_kv_heads != shape.num_heads || shape.head_dim < 1) {
    fail_invalid("[linear] the shape has ", shape.num_heads, " heads, ", shape.num_kv_heads,
                 " kv heads, key dimension ", shape.head_dim, " and value dimension ", shape.state.value_dim,
                 "; all are positive, and a linear layer has as many kv heads as heads");
  }
  find_transport(options.transport);
  if (options.blocks < 0 || options.blocks > shape.num_heads) {
    fail_invalid("[linear] states travel in ", options.blocks, " blocks of ", shape.num_heads,
                 " heads; a block has at least one head, 0 chooses");
  }
}

int64_t StateTraffic::bytes(const AttentionShape& shape) const {
  return (states * width(TensorName::state, shape) + transitions * width(TensorName::transition, shape)) *
         shape.num_heads * num_bytes(accumulation_type(shape.element));
}

StateTraffic forward_traffic(const Plan& plan, const AttentionShape& shape, const StateOptions& options) {
  return traffic(plan, shape, options, false);
}
StateTraffic backward_traffic(const Plan& plan, const AttentionShape& shape, const StateOptions& options) {
  return traffic(plan, shape, options, true);
}

RankProgram lower_linear(const Plan& plan, const AttentionShape& shape, const StateOptions& options, Rank rank) {
  validate(shape, options);
  check_recurrent(plan.request.documents, "linear");
  return LinearLowering(plan, shape, options, rank).run();
}

LoweredPlan lower_linear_all(const Plan& plan, const AttentionShape& shape, const StateOptions& options) {
  LoweredPlan lowered{plan.request, plan.placement, {}};
  lowered.request.shape = shape;
  for (int32_t r = 0; r < plan.request.num_ranks(); ++r) {
    lowered.programs.push_back(lower_linear(plan, shape, options, Rank(r)));
  }
  return lowered;
}

LinearLowering::LinearLowering(const Plan& plan, const AttentionShape& shape, const StateOptions& options, Rank rank)
    : plan_(plan), shape_(shape), options_(options), rank_(rank) {
  Buffer& saved = program_.buffer(BufferId::saved);
  int64_t row = 0;
  for (const PlacedSpan& placed : plan.placement.spans(rank)) {
    const auto pieces = pieces_of(plan, placed.document);
    const auto count = static_cast<int32_t>(pieces.size());
    OwnPart own{{placed.document, placed.span, row}, 0, count, {}, {}};
    while (pieces[static_cast<size_t>(own.index)].span != placed.span) ++own.index;
    row += placed.span.size();
    const auto save = [&](TensorName tensor, Span rows) {
      Block block = state_block(tensor, BufferId::saved, placed.document, rows);
      block.offset_bytes = saved.bytes;
      saved.bytes += aligned(payload_bytes(block, shape_));
      return block;
    };
    if (own.index > 0) own.saved_state = save(TensorName::state, {0, placed.span.begin});
    if (has_incoming(own.index) && has_outgoing(own.index, count) && width(TensorName::transition, shape_) > 0) {
      own.saved_transition = save(TensorName::transition, placed.span);
    }
    parts_.push_back(own);
  }
}

RankProgram LinearLowering::run() {
  program_.phases.push_back(lower(false));
  program_.phases.push_back(recompute());
  program_.phases.push_back(lower(true));
  return std::move(program_);
}

Block LinearLowering::state_block(TensorName tensor, BufferId buffer, DocumentId document, Span rows) {
  const HeadRange heads{0, shape_.num_heads};
  if (buffer == BufferId::arena) return emitter_->arena_block(tensor, Precision::accumulation, document, rows, heads);
  return {tensor, buffer, Precision::accumulation, document, rows, heads, 0, heads.size() * width(tensor, shape_)};
}

Block LinearLowering::home_state(TensorName tensor, DocumentId document, Span rows) const {
  const HeadRange heads{0, shape_.num_heads};
  const int64_t row_stride = heads.size() * width(tensor, shape_);
  return {tensor,
          BufferId::home,
          Precision::accumulation,
          document,
          rows,
          heads,
          document.value * row_stride * num_bytes(accumulation_type(shape_.element)),
          row_stride};
}

// REQUIRES: a state comes in.
Block LinearLowering::state_before(const OwnPart& own) const {
  return own.saved_state ? *own.saved_state : home_state(TensorName::state, own.part.document, {0, 0});
}

// None where the part starts from 0.
std::optional<Block> LinearLowering::started_from(const OwnPart& own) const {
  return has_incoming(own.index) ? std::optional(state_before(own)) : std::nullopt;
}

std::optional<Block> LinearLowering::transition_block(DocumentId document, Span rows) {
  if (width(TensorName::transition, shape_) == 0) return std::nullopt;
  return state_block(TensorName::transition, BufferId::arena, document, rows);
}

Span LinearLowering::rows_of(const Local& local, PartRange range) const {
  const auto count = static_cast<int32_t>(local.spans.size());
  const auto span = [&](int32_t index) { return local.spans[static_cast<size_t>(mirrored(index, count))]; };
  const Span first = span(range.begin), last = span(range.end - 1);
  return {std::min(first.begin, last.begin), std::max(first.end, last.end)};
}

// What will hold the range on this rank: a state that a part starts from is saved in forward.
LinearLowering::Held& LinearLowering::open(Local* local, PartRange range) {
  const auto found = local->held.find(range);
  if (found != local->held.end()) return found->second;
  const Span rows = rows_of(*local, range);
  Held held;
  if (range.begin > 0) {
    held.block = state_block(summary_, BufferId::arena, local->document, rows);
    held.transition = transition_block(local->document, rows);
  } else {
    const auto starts = [&](size_t i) { return !backward_ && parts_[i].index == range.end; };
    const auto own = std::find_if(local->own.begin(), local->own.end(), starts);
    held.block = own != local->own.end() ? state_before(parts_[*own])
                                         : state_block(state_, BufferId::arena, local->document, rows);
  }
  return local->held.emplace(range, std::move(held)).first->second;
}

// Where a move of the range arrives. What this rank has folded itself, for another of its parts, arrives beside it.
LinearLowering::Held& LinearLowering::target(Local* local, PartRange range) {
  const auto found = local->held.find(range);
  if (found == local->held.end() || !found->second.arrivals.empty()) return open(local, range);
  Held& beside = local->unused.emplace_back(found->second);
  beside.block = state_block(beside.block.tensor, BufferId::arena, local->document, beside.block.rows);
  if (beside.transition) beside.transition = transition_block(local->document, beside.block.rows);
  return beside;
}

LinearLowering::Local LinearLowering::make_local(DocumentId document, std::vector<size_t> own) {
  Local local{document, {}, std::move(own), {}, 0, 0, {}, {}};
  const auto pieces = pieces_of(plan_, document);
  for (const auto& piece : pieces) local.spans.push_back(piece.span);
  if (backward_) std::reverse(local.own.begin(), local.own.end());
  if (pieces.size() > 1) {
    const Chain chain = chain_of(plan_, pieces, backward_);
    local.scan =
        find_transport(options_.transport).scan(chain, scan_options(chain, plan_.request.topology, shape_, options_));
    std::erase_if(local.scan.moves, [this](const StateMove& m) { return m.from != rank_ && m.to != rank_; });
    std::erase_if(local.scan.folds, [this](const StateFold& f) { return f.rank != rank_; });
    std::stable_sort(local.scan.moves.begin(), local.scan.moves.end(),
                     [](const StateMove& a, const StateMove& b) { return a.round < b.round; });
    std::stable_sort(local.scan.folds.begin(), local.scan.folds.end(),
                     [](const StateFold& a, const StateFold& b) { return a.round < b.round; });
  }
  return local;
}

// The maps of the parts that something goes out of; where nothing comes in, the state itself.
void LinearLowering::summarize() {
  Summarize forward;
  SummarizeGradient backward;
  const auto add = [&](const OwnPart& own, const Block& to, const std::optional<Block>& transition) {
    if (backward_) {
      backward.items.push_back({own.part, to});
    } else {
      forward.items.push_back({own.part, to, transition});
    }
  };
  for (Local& local : locals_) {
    const auto count = static_cast<int32_t>(local.spans.size());
    for (const size_t i : local.own) {
      const OwnPart& own = parts_[i];
      const int32_t index = mirrored(own.index, count);
      if (!goes_out(index, count)) continue;
      const PartRange range{index, index + 1};
      if (!comes_in(index)) {
        const Block to =
            count == 1 ? home_state(result_, local.document, {0, own.part.rows.end}) : open(&local, range).block;
        add(own, to, {});
        continue;
      }
      Held held{state_block(summary_, BufferId::arena, local.document, own.part.rows), own.saved_transition, {}};
      add(own, held.block, held.transition);
      if (index > 0) {
        local.held.emplace(range, held);
        continue;
      }
      // Something given comes into the first part.
      const Span end = backward_ ? Span{own.part.rows.end, own.part.rows.end} : Span{0, 0};
      const Block to =
          count == 1 ? home_state(result_, local.document, {0, own.part.rows.end}) : open(&local, range).block;
      compositions_.push_back({to, home_state(state_, local.document, end), held.block, {}, {}, held.transition});
    }
  }
  emitter_->emit(std::move(forward));
  emitter_->emit(std::move(backward));
}

void LinearLowering::need(const Held& held, HeadRange heads) {
  for (const auto& [range, exchange] : held.arrivals) {
    if (!range.overlaps(heads) || completed_[exchange]) continue;
    emit_intra();
    emit_compositions();
    emitter_->complete(std::move(pending_[exchange]));
    completed_[exchange] = 1;
  }
}

void LinearLowering::fold(Local* local, PartRange to, PartRange far, PartRange near, HeadRange heads) {
  const auto known = local->held.find(to);
  if (known != local->held.end() && !known->second.arrivals.empty())
    return;  // another of this rank's parts received it
  const Held& near_held = local->held.at(near);
  const Held& far_held = local->held.at(far);
  need(far_held, heads);
  need(near_held, heads);
  const Held& target = open(local, to);
  const auto part = [&](const Block& block) { return sub_block(block, block.rows, heads, shape_); };
  Composition c{part(target.block), part(far_held.block), part(near_held.block), {}, {}, {}};
  if (near_held.transition) c.near_transition = part(*near_held.transition);
  if (to.begin > 0 && target.transition && far_held.transition) {
    c.to_transition = part(*target.transition);
    c.far_transition = part(*far_held.transition);
  }
  compositions_.push_back(c);
}

// Folds, then moves of one round, of all documents together.
void LinearLowering::run_round(int32_t round) {
  for (Local& local : locals_) {
    const auto& folds = local.scan.folds;
    for (; local.next_fold < folds.size() && folds[local.next_fold].round <= round; ++local.next_fold) {
      const StateFold& f = folds[local.next_fold];
      fold(&local, f.to, f.far, f.near, f.heads);
    }
  }
  ExchangeBuilder builder(emitter_.get());
  struct Arrival {
    Held* held;
    HeadRange heads;
  };
  std::vector<Arrival> arrivals;
  std::vector<std::pair<Rank, Block>> sends;
  for (Local& local : locals_) {
    for (; local.next_move < local.scan.moves.size() && local.scan.moves[local.next_move].round == round;
         ++local.next_move) {
      const StateMove& move = local.scan.moves[local.next_move];
      const bool sending = move.from == rank_;
      Held& held = sending ? local.held.at(move.range) : target(&local, move.range);
      if (sending) need(held, move.heads);
      if (!sending) arrivals.push_back({&held, move.heads});
      const auto add = [&](const Block& whole) {
        const Block block = sub_block(whole, whole.rows, move.heads, shape_);
        if (sending)
          sends.emplace_back(move.to, block);
        else
          builder.receive(move.from, block, Precision::accumulation, false);
      };
      add(held.block);
      if (held.transition) add(*held.transition);
    }
  }
  for (const auto& [to, block] : sends) builder.send(to, block, Precision::accumulation);
  emit_compositions();
  Completion pending = builder.start();
  if (pending.event == kNoEvent) return;
  for (const Arrival& arrival : arrivals) arrival.held->arrivals.emplace_back(arrival.heads, pending_.size());
  pending_.push_back(std::move(pending));
  completed_.push_back(0);
}

void LinearLowering::emit_compositions() {
  if (backward_) {
    emitter_->emit(CombineGradient{std::move(compositions_)});
  } else {
    emitter_->emit(Combine{std::move(compositions_)});
  }
  compositions_.clear();
}

// Before the first wait, so that states travel meanwhile.
void LinearLowering::emit_intra() {
  if (intra_emitted_) return;
  intra_emitted_ = true;
  Intra forward;
  IntraGradient backward;
  for (const OwnPart& own : parts_) {
    const bool pending = comes_in(mirrored(own.index, own.count));
    if (backward_) {
      backward.items.push_back({own.part, pending, started_from(own)});
    } else {
      forward.items.push_back({own.part, pending});
    }
  }
  emitter_->emit(std::move(forward));
  emitter_->emit(std::move(backward));
}

// Completes the parts that something comes into, and makes what is asked for at the other end.
void LinearLowering::finish() {
  Apply forward;
  ApplyGradient backward;
  for (Local& local : locals_) {
    const auto count = static_cast<int32_t>(local.spans.size());
    for (const size_t i : local.own) {
      const OwnPart& own = parts_[i];
      const int32_t index = mirrored(own.index, count);
      if (!comes_in(index)) continue;
      const HeadRange heads{0, shape_.num_heads};
      const Held* incoming = index > 0 ? &local.held.at({0, index}) : nullptr;
      if (incoming) need(*incoming, heads);
      const int64_t length = local.spans.back().end;
      const Block state = incoming ? incoming->block
                                   : home_state(state_, local.document, backward_ ? Span{length, length} : Span{0, 0});
      if (incoming && asked_ && index + 1 == count) {
        const Held& last = local.held.at({index, index + 1});
        compositions_.push_back(
            {home_state(result_, local.document, {0, length}), state, last.block, {}, {}, last.transition});
      }
      if (backward_) {
        backward.items.push_back({own.part, started_from(own), state});
      } else {
        forward.items.push_back({own.part, state});
      }
    }
  }
  emit_intra();
  emit_compositions();
  emitter_->emit(std::move(forward));
  emitter_->emit(std::move(backward));
}

// All states that forward's parts start from are saved.
Phase LinearLowering::recompute() {
  Emitter emitter(shape_, PhaseKind::recompute);
  Intra intra;
  Apply apply;
  for (const OwnPart& own : parts_) {
    intra.items.push_back({own.part, has_incoming(own.index)});
    if (has_incoming(own.index)) apply.items.push_back({own.part, state_before(own)});
  }
  emitter.emit(std::move(intra));
  emitter.emit(std::move(apply));
  return emitter.finish(&program_.buffer(BufferId::arena));
}

Phase LinearLowering::lower(bool backward) {
  backward_ = backward;
  given_ = backward ? shape_.state.final : shape_.state.initial;
  asked_ = backward ? shape_.state.initial : shape_.state.final;
  state_ = backward ? TensorName::grad_state : TensorName::state;
  summary_ = backward ? TensorName::grad_summary : TensorName::summary;
  result_ = backward ? TensorName::grad_initial_state : TensorName::final_state;
  emitter_ = std::make_unique<Emitter>(shape_, backward ? PhaseKind::backward : PhaseKind::forward);
  locals_.clear();
  pending_.clear();
  completed_.clear();
  intra_emitted_ = false;
  for (size_t begin = 0, end = 0; begin < parts_.size(); begin = end) {
    const DocumentId document = parts_[begin].part.document;
    std::vector<size_t> own;
    for (; end < parts_.size() && parts_[end].part.document == document; ++end) own.push_back(end);
    locals_.push_back(make_local(document, std::move(own)));
  }
  summarize();
  int32_t last_round = -1;
  for (const Local& local : locals_) {
    if (!local.scan.moves.empty()) last_round = std::max(last_round, local.scan.moves.back().round);
    if (!local.scan.folds.empty()) last_round = std::max(last_round, local.scan.folds.back().round);
  }
  for (int32_t round = 0; round <= last_round; ++round) run_round(round);
  finish();
  return emitter_->finish(&program_.buffer(BufferId::arena));
}

}  // namespace evenspan::plan
