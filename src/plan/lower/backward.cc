// The backward program: the transpose of the forward one. Gradients of outputs go from home to the rank that finished
// the rows; rounds run in reverse; what was received as operands comes home as gradients, after the last tile that read
// it.
#include <set>

#include "evenspan/core/error.h"
#include "plan/lower/partial_gradients.h"
#include "plan/lower/rank_lowering.h"

namespace evenspan::plan {
class BackwardLowering {
 public:
  explicit BackwardLowering(RankLowering* rank)
      : rank_(*rank),
        plan_(rank->plan_),
        shape_(rank->shape_),
        num_rounds_(static_cast<size_t>(plan_.num_rounds)),
        emitter_(shape_, PhaseKind::backward),
        incoming_(num_rounds_),
        outgoing_(num_rounds_),
        query_arrivals_(num_rounds_),
        query_departures_(num_rounds_),
        partials_(rank, &emitter_) {
    for (size_t round = 0; round < num_rounds_; ++round) builders_.emplace_back(&emitter_);
    for (const Move& move : plan_.moves) {
      if (move.operand != Operand::output) continue;
      if (move.to == rank_.rank_) query_arrivals_[static_cast<size_t>(move.first_round)].push_back(&move);
      if (move.from == rank_.rank_) query_departures_[static_cast<size_t>(move.first_round)].push_back(&move);
    }
    for (const Need& need : plan_.needs) {
      if (need.move.operand != Operand::key_value) continue;
      const auto round = static_cast<size_t>(need.move.round);
      if (need.move.to == rank_.rank_) outgoing_[round].push_back(&need);
      if (need.move.from == rank_.rank_) incoming_[round].push_back(&need);
    }
  }

  Phase run() {
    open_operands();
    make_query_sums();
    make_key_sums();
    Clear clear;
    for (const auto& [key, sum] : home_sums_) append_clears(sum, &clear.items);
    partials_.for_each_home_group([&](size_t group) { clear_once(query_sums_[group], &clear.items); });
    emitter_.emit(std::move(clear));

    open_grad_outputs();
    partials_.open(grad_outputs_, &builders_);
    std::vector<Completion> grad_outputs(num_rounds_), operands(num_rounds_), gradients(num_rounds_);
    size_t num_unstarted = num_rounds_;
    const auto start_operands_down_to = [&](size_t round) {
      while (num_unstarted > round) {
        --num_unstarted;
        if (plan_.prefetch_all) grad_outputs[num_unstarted] = start_grad_outputs(num_unstarted);
        operands[num_unstarted] = builders_[num_unstarted].start();
      }
    };
    if (!plan_.prefetch_all) {
      for (size_t round = num_rounds_; round-- > 0;) grad_outputs[round] = start_grad_outputs(round);
    }
    for (size_t round = num_rounds_; round-- > 0;) {
      start_operands_down_to(plan_.prefetch_all || round == 0 ? 0 : round - 1);
      emitter_.complete(std::move(grad_outputs[round]));
      emitter_.emit(Copy{std::move(grad_output_fills_[round])});
      emitter_.complete(std::move(operands[round]));
      if (!plan_.keep_operands) emitter_.emit(Copy{std::move(fills_[round])});
      emit_tiles(round);
      if (!plan_.prefetch_all && round + 1 < num_rounds_) emitter_.complete(std::move(gradients[round + 1]));
      gradients[round] = start_gradients(round);
    }
    for (size_t round = num_rounds_; plan_.prefetch_all && round-- > 1;) {
      emitter_.complete(std::move(gradients[round]));
    }
    emit_filled();
    emitter_.complete(std::move(gradients[0]));
    emit_final_copies();
    return emitter_.finish(&rank_.program_.buffer(BufferId::arena));
  }

 private:
  using Sum = GradientSum;
  using HomeKey = std::pair<DocumentId, Span>;

  // Where operands lie: kept from forward, or moved again, each for the first round of backward that reads it. Rows
  // that one tile reads together lie together, so they come together.
  void open_operands() {
    if (plan_.keep_operands) return;
    fills_.resize(num_rounds_);
    RankLowering::OperandRows rows;
    std::map<RankLowering::OperandRows::key_type, std::vector<const Need*>> needs;
    for (const Task& task : rank_.tasks_) rank_.append_operand_rows(task, &rows);
    for (const Need& need : plan_.needs) {
      const Move& move = need.move;
      if (move.from == rank_.rank_) {
        const auto blocks = rank_.operand_blocks(holdings_, move.operand, move.document, move.rows, move.heads);
        auto& builder = builders_[static_cast<size_t>(need.last_round)];
        builder.send(move.to, blocks.first, Precision::input);
        if (move.operand == Operand::key_value) builder.send(move.to, blocks.second, Precision::input);
      }
      if (move.to != rank_.rank_) continue;
      rows[{move.operand, move.document, move.heads}].push_back(move.rows);
      needs[{move.operand, move.document, move.heads}].push_back(&need);
    }
    for (const auto& [key, key_rows] : rows) {
      for (const Span& whole : union_of(key_rows, Join::overlapping)) {
        std::map<int32_t, std::vector<const Move*>> arrivals;  // all in one round: see Need::last_round
        for (const Need* need : needs[key]) {
          if (need->move.rows.overlaps(whole)) arrivals[need->last_round].push_back(&need->move);
        }
        EVENSPAN_CHECK_EQ(arrivals.size(), 1U);
        const auto round = static_cast<size_t>(arrivals.begin()->first);
        const auto copies = rank_.open_holdings({{key, {whole}}}, Join::overlapping, arrivals.begin()->second, false,
                                                &emitter_, &builders_[round], &holdings_);
        fills_[round].insert(fills_[round].end(), copies.begin(), copies.end());
      }
    }
  }

  const Holdings& holdings() const { return plan_.keep_operands ? rank_.forward_holdings_ : holdings_; }

  // Calls f(task, kernel heads) for the tiles of a round in program order.
  template <class F>
  void for_each_call(size_t round, F&& f) {
    for (const size_t t : rank_.rounds_[round]) {
      for (const HeadRange& heads : rank_.kernel_heads(rank_.tasks_[t].tile.heads)) f(t, heads);
    }
  }

  // The sum that a tile's key and value gradients belong to: of a home span or of a holding.
  Sum& key_sum(const Tile& tile, HeadRange kv_heads) {
    if (rank_.at_home(tile.document, tile.keys)) return home_sum(tile.document, tile.keys);
    const Holding* holding = holdings().find(Operand::key_value, tile.document, tile.keys, kv_heads);
    EVENSPAN_CHECK_EQ(holding != nullptr, true);
    return holding_sums_.at(holding);
  }

  Sum& home_sum(DocumentId document, Span rows) {
    for (const Span& span : rank_.placement_.spans_of(rank_.rank_, document)) {
      if (span.contains(rows)) return home_sums_.at(HomeKey{document, span});
    }
    fail(ErrorKind::unsupported, "[lower] rows [", rows.begin, ", ", rows.end, ") are not at home");
  }

  void make_query_sums() {
    for (const auto& group : rank_.groups_) query_sums_.push_back(Sum{group.rows, group.heads, {}, {}, {}, {}});
    for (size_t round = num_rounds_; round-- > 0;) {
      for_each_call(round, [&](size_t t, HeadRange heads) {
        query_calls_.push_back(query_sums_[rank_.group_of_task_[t]].add(rank_.tasks_[t].tile.queries, heads));
      });
      if (round + 1 < num_rounds_) partials_.register_arrivals(round + 1, &query_sums_);
    }
    partials_.register_own(&query_sums_);
    partials_.register_arrivals(0, &query_sums_);
    for (size_t g = 0; g < query_sums_.size(); ++g) {
      const auto& group = rank_.groups_[g];
      Sum& sum = query_sums_[g];
      sum.combination = combine(sum.rows, sum.heads, sum.contributions);
      const bool wide = sum.combination.overlap && rank_.accumulation() != Precision::input;
      sum.first = group.at_home && !wide
                      ? rank_.home_block(TensorName::grad_query, group.document, group.rows, group.heads)
                      : emitter_.arena_block(TensorName::grad_query, wide ? Precision::accumulation : Precision::input,
                                             group.document, group.rows, group.heads);
    }
  }

  void make_key_sums() {
    const HeadRange all{0, shape_.num_kv_heads};
    for (const PlacedSpan& placed : rank_.placement_.spans(rank_.rank_)) {
      home_sums_.emplace(HomeKey{placed.document, placed.span}, Sum{placed.span, all, {}, {}, {}, {}});
    }
    for (const auto& [key, list] : holdings().all()) {
      if (key.first != Operand::key_value) continue;
      for (const Holding& holding : list) {
        holding_sums_.emplace(&holding, Sum{holding.rows, holding.heads, {}, {}, {}, {}});
      }
    }
    // The order of emission: see run().
    const auto register_incoming = [&](size_t round) {
      for (const Need* need : incoming_[round]) {
        incoming_number_[need] = home_sum(need->move.document, need->move.rows).add(need->move.rows, need->move.heads);
      }
    };
    for (size_t round = num_rounds_; round-- > 0;) {
      for_each_call(round, [&](size_t t, HeadRange heads) {
        const Tile& tile = rank_.tasks_[t].tile;
        key_calls_.push_back(key_sum(tile, shape_.kv_heads(heads)).add(tile.keys, shape_.kv_heads(heads)));
      });
      if (!plan_.prefetch_all && round + 1 < num_rounds_) register_incoming(round + 1);
    }
    for (size_t round = num_rounds_; plan_.prefetch_all && round-- > 1;) register_incoming(round);
    for_each_filled([&](const Holding& holding, Span rows) {
      filled_.push_back(home_sum(holding.document, rows).add(rows, holding.heads));
    });
    register_incoming(0);

    for (auto& [key, sum] : home_sums_) {
      sum.combination = combine(sum.rows, sum.heads, sum.contributions);
      const bool wide = sum.combination.overlap && rank_.accumulation() != Precision::input;
      const DocumentId document = key.first;
      const Span rows = sum.rows;
      const auto block = [&](TensorName tensor) {
        return wide ? emitter_.arena_block(tensor, Precision::accumulation, document, rows, all)
                    : rank_.home_block(tensor, document, rows, all);
      };
      sum.first = block(TensorName::grad_key);
      sum.second = block(TensorName::grad_value);
    }
    for (const auto& [key, list] : holdings().all()) {
      if (key.first != Operand::key_value) continue;
      for (const Holding& holding : list) open_sum(holding, &holding_sums_.at(&holding));
    }
  }

  void open_sum(const Holding& holding, Sum* of) {
    Sum& sum = *of;
    if (sum.contributions.empty()) return;
    sum.combination = combine(sum.rows, sum.heads, sum.contributions);
    const Precision precision = sum.combination.overlap ? rank_.accumulation() : Precision::input;
    sum.first = emitter_.arena_block(TensorName::grad_key, precision, holding.document, sum.rows, sum.heads);
    sum.second = emitter_.arena_block(TensorName::grad_value, precision, holding.document, sum.rows, sum.heads);
  }

  // Rows of holdings that came from the own home and that tiles read.
  template <class F>
  void for_each_filled(F&& f) {
    for (auto& [key, list] : holdings().all()) {
      if (key.first != Operand::key_value) continue;
      for (const Holding& holding : list) {
        if (holding_sums_.at(&holding).contributions.empty()) continue;
        for (const Span& rows : holding.filled) f(holding, rows);
      }
    }
  }

  void open_grad_outputs() {
    grad_output_fills_.resize(num_rounds_);
    for (const auto& group : rank_.groups_) {
      grad_outputs_.push_back(group.at_home
                                  ? rank_.home_block(TensorName::grad_output, group.document, group.rows, group.heads)
                                  : emitter_.arena_block(TensorName::grad_output, Precision::input, group.document,
                                                         group.rows, group.heads));
      if (group.at_home) continue;
      for (const Span& span : rank_.placement_.spans_of(rank_.rank_, group.document)) {
        const Span rows = span.intersect(group.rows);
        if (rows.empty()) continue;
        grad_output_fills_[static_cast<size_t>(group.last_round)].push_back(
            BlockPair{sub_block(grad_outputs_.back(), rows, group.heads, shape_),
                      rank_.home_block(TensorName::grad_output, group.document, rows, group.heads)});
      }
    }
  }

  // Of the rows whose first tiles, in reverse, are the round's.
  Completion start_grad_outputs(size_t round) {
    ExchangeBuilder builder(&emitter_);
    for (const Move* output : rank_.output_arrivals_[round]) {
      builder.send(output->from,
                   rank_.home_block(TensorName::grad_output, output->document, output->rows, output->heads),
                   Precision::input);
    }
    for (const Move* output : rank_.output_departures_[round]) {
      const size_t group = rank_.group_of(*output);
      builder.receive(output->to, sub_block(grad_outputs_[group], output->rows, output->heads, shape_),
                      Precision::input, false);
    }
    return builder.start();
  }

  void emit_tiles(size_t round) {
    AttendGradient attend;
    Clear clear;
    for (const size_t t : rank_.rounds_[round]) {
      const Tile& tile = rank_.tasks_[t].tile;
      if (!rank_.at_home(tile.document, tile.keys)) {
        Sum& sum = key_sum(tile, rank_.kv_heads(tile));
        clear_once(sum, &clear.items);
      }
      clear_once(query_sums_[rank_.group_of_task_[t]], &clear.items);
    }
    for_each_call(round, [&](size_t t, HeadRange heads) {
      const Tile& tile = rank_.tasks_[t].tile;
      const size_t g = rank_.group_of_task_[t];
      const HeadRange kv_heads = shape_.kv_heads(heads);
      const auto& group = rank_.groups_[g];
      const auto [output, lse] = group.leaves ? partials_.finals_of(g) : std::pair(group.output, group.lse);
      BackwardSegment segment{rank_.segment(holdings(), tile, heads), {}, {}, {}, {}, {}, {}};
      segment.output = sub_block(output, tile.queries, heads, shape_);
      segment.lse = sub_block(lse, tile.queries, heads, shape_);
      segment.grad_output = sub_block(grad_outputs_[g], tile.queries, heads, shape_);
      segment.grad_query = {sub_block(query_sums_[g].first, tile.queries, heads, shape_),
                            query_sums_[g].adds(query_calls_[num_calls_])};
      const Sum& sum = key_sum(tile, kv_heads);
      const bool add = sum.adds(key_calls_[num_calls_]);
      ++num_calls_;
      segment.grad_key = {sub_block(sum.first, tile.keys, kv_heads, shape_), add};
      segment.grad_value = {sub_block(sum.second, tile.keys, kv_heads, shape_), add};
      attend.items.push_back(segment);
    });
    emitter_.emit(std::move(clear));
    emitter_.emit(std::move(attend));
  }

  // What one tile call wrote is still as exact in the input's type; sums travel in the accumulation type.
  Precision wire(const Need& need) const { return need.num_tiles == 1 ? Precision::input : rank_.accumulation(); }

  // Key and value gradients of the operands that came for this round, and those of queries that it finished.
  Completion start_gradients(size_t round) {
    ExchangeBuilder builder(&emitter_);
    for (const Need* need : outgoing_[round]) {
      const Move& move = need->move;
      const Holding* holding = holdings().find(Operand::key_value, move.document, move.rows, move.heads);
      EVENSPAN_CHECK_EQ(holding != nullptr, true);
      const Sum& sum = holding_sums_.at(holding);
      builder.send(move.from, sub_block(sum.first, move.rows, move.heads, shape_), wire(*need));
      builder.send(move.from, sub_block(sum.second, move.rows, move.heads, shape_), wire(*need));
    }
    for (const Need* need : incoming_[round]) {
      const Move& move = need->move;
      const Sum& sum = home_sum(move.document, move.rows);
      const bool add = sum.adds(incoming_number_.at(need));
      builder.receive(move.to, sub_block(sum.first, move.rows, move.heads, shape_), wire(*need), add);
      builder.receive(move.to, sub_block(sum.second, move.rows, move.heads, shape_), wire(*need), add);
    }
    partials_.exchange(round, query_sums_, &builder);
    for (const Move* output : query_departures_[round]) {
      const size_t group = rank_.group_of(*output);
      builder.send(output->to, sub_block(query_sums_[group].first, output->rows, output->heads, shape_),
                   Precision::input);
    }
    for (const Move* output : query_arrivals_[round]) {
      builder.receive(output->from,
                      rank_.home_block(TensorName::grad_query, output->document, output->rows, output->heads),
                      Precision::input, false);
    }
    return builder.start();
  }

  // Gradients of the own rows that were assembled with others'.
  void emit_filled() {
    Copy copy;
    Accumulate accumulate;
    size_t number = 0;
    for_each_filled([&](const Holding& holding, Span rows) {
      const Sum& from = holding_sums_.at(&holding);
      const Sum& to = home_sum(holding.document, rows);
      auto& pairs = to.adds(filled_[number++]) ? accumulate.items : copy.items;
      for (const auto part : {&Sum::first, &Sum::second}) {
        pairs.push_back(BlockPair{sub_block(to.*part, rows, holding.heads, shape_),
                                  sub_block(from.*part, rows, holding.heads, shape_)});
      }
    });
    partials_.append_own(query_sums_, &copy, &accumulate);
    emitter_.emit(std::move(copy));
    emitter_.emit(std::move(accumulate));
  }

  // What was summed beside the home tensors goes there, rounded once.
  void emit_final_copies() {
    Copy copy;
    for (size_t g = 0; g < query_sums_.size(); ++g) {
      const Block& sum = query_sums_[g].first;
      const auto& group = rank_.groups_[g];
      if (sum.buffer == BufferId::home || group.leaves) continue;
      for (const Span& span : rank_.placement_.spans_of(rank_.rank_, group.document)) {
        const Span rows = span.intersect(group.rows);
        if (rows.empty()) continue;
        copy.items.push_back(BlockPair{rank_.home_block(TensorName::grad_query, group.document, rows, group.heads),
                                       sub_block(sum, rows, group.heads, shape_)});
      }
    }
    for (const auto& [key, sum] : home_sums_) {
      for (const Block& block : {sum.first, sum.second}) {
        if (block.buffer == BufferId::home) continue;
        copy.items.push_back(BlockPair{rank_.home_block(block.tensor, key.first, block.rows, block.heads), block});
      }
    }
    emitter_.emit(std::move(copy));
  }

  // A sum is cleared before its first contribution.
  void clear_once(const Sum& sum, std::vector<Block>* blocks) {
    if (cleared_.insert(&sum).second) append_clears(sum, blocks);
  }

  static void append_clears(const Sum& sum, std::vector<Block>* blocks) {
    if (!sum.combination.clear) return;
    blocks->push_back(sum.first);
    if (sum.first.tensor == TensorName::grad_key) blocks->push_back(sum.second);
  }

  RankLowering& rank_;
  const Plan& plan_;
  const AttentionShape& shape_;
  const size_t num_rounds_;
  Emitter emitter_;
  std::vector<std::vector<const Need*>> incoming_, outgoing_;                // [round], keys and values
  std::vector<std::vector<const Move*>> query_arrivals_, query_departures_;  // [round], gradients, named by outputs
  PartialGradients partials_;
  Holdings holdings_;                          // of operands that are moved again
  std::vector<ExchangeBuilder> builders_;      // [round], their transfers, and what partials need
  std::vector<std::vector<BlockPair>> fills_;  // [round], and copies from home
  std::vector<Sum> query_sums_;                // [group]
  std::map<HomeKey, Sum> home_sums_;
  std::map<const Holding*, Sum> holding_sums_;             // in no order: addresses differ from run to run
  std::vector<Block> grad_outputs_;                        // [group]
  std::vector<std::vector<BlockPair>> grad_output_fills_;  // [round], and copies from home
  // Numbers of contributions in their sums.
  std::vector<size_t> query_calls_, key_calls_;  // [call, in program order]
  std::map<const Need*, size_t> incoming_number_;
  std::vector<size_t> filled_;  // in the order of for_each_filled
  size_t num_calls_ = 0;
  std::set<const Sum*> cleared_;
};

void RankLowering::lower_backward() { program_.phases.push_back(BackwardLowering(this).run()); }

}  // namespace evenspan::plan
