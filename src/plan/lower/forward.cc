// The forward program: exchanges of operands run ahead of their tiles, outputs go home after their last one.
#include <algorithm>

#include "plan/lower/output_sums.h"
#include "plan/lower/rank_lowering.h"

namespace evenspan::plan {

void RankLowering::lower_forward() {
  Emitter emitter(shape_, PhaseKind::forward);
  const int32_t num_rounds = plan_.num_rounds;

  OutputSums sums(this, &emitter);
  std::vector<Completion> pending(static_cast<size_t>(num_rounds));
  std::vector<std::vector<BlockPair>> fills(static_cast<size_t>(num_rounds));
  int32_t num_started = 0;
  const auto start = [&] {
    const auto round = static_cast<size_t>(num_started);
    ExchangeBuilder builder(&emitter);
    // What is sent was there before this round's arrivals.
    for (const Move* move : departures_[round]) {
      const auto blocks = operand_blocks(forward_holdings_, move->operand, move->document, move->rows, move->heads);
      builder.send(move->to, blocks.first, Precision::input);
      if (move->operand == Operand::key_value) builder.send(move->to, blocks.second, Precision::input);
    }
    OperandRows rows;
    for (const Move* move : arrivals_[round]) rows[{move->operand, move->document, move->heads}].push_back(move->rows);
    for (const size_t t : rounds_[round]) {
      const Tile& tile = tasks_[t].tile;
      OperandRows operands;
      append_operand_rows(tasks_[t], &operands);
      for (auto& [key, spans] : operands) {
        const auto& [operand, document, heads] = key;
        if (forward_holdings_.find(operand, tile.document, spans[0], heads) == nullptr) rows[key].push_back(spans[0]);
      }
    }
    fills[round] = open_holdings(rows, Join::touching, arrivals_[round], plan_.keep_operands, &emitter, &builder,
                                 &forward_holdings_);
    pending[round] = builder.start();
    ++num_started;
  };
  // An exchange that forwards received rows has to wait for them; where ranks relay, on all ranks, so that all start
  // their exchanges in one order.
  const auto forwards = [&](int32_t round) {
    if (std::binary_search(plan_.relay_rounds.begin(), plan_.relay_rounds.end(), round)) return true;
    const auto& departures = departures_[static_cast<size_t>(round)];
    return std::any_of(departures.begin(), departures.end(),
                       [this](const Move* move) { return !at_home(move->document, move->rows); });
  };

  std::vector<Completion> outputs(static_cast<size_t>(num_rounds));
  const auto start_outputs = [&](int32_t round) {
    const auto s = static_cast<size_t>(round);
    ExchangeBuilder builder(&emitter);
    Copy own;
    sums.narrow(round);
    for (const OutputGroup& group : groups_) {
      if (group.last_round != round || group.at_home || group.leaves) continue;
      for (const Span& span : placement_.spans_of(rank_, group.document)) {
        const Span rows = span.intersect(group.rows);
        if (rows.empty()) continue;
        own.items.push_back(BlockPair{home_block(TensorName::output, group.document, rows, group.heads),
                                      sub_block(group.output, rows, group.heads, shape_)});
      }
    }
    for (const Move* move : output_departures_[s]) {
      builder.send(move->to, sub_block(groups_[group_of(*move)].output, move->rows, move->heads, shape_),
                   Precision::input);
    }
    for (const Move* move : output_arrivals_[s]) {
      builder.receive(move->from, home_block(TensorName::output, move->document, move->rows, move->heads),
                      Precision::input, false);
    }
    outputs[s] = builder.start();
    emitter.emit(std::move(own));
  };

  for (int32_t round = 0; round < num_rounds; ++round) {
    const auto s = static_cast<size_t>(round);
    if (num_started == round) start();
    const int32_t ahead = plan_.prefetch_all ? num_rounds : std::min(round + 2, num_rounds);
    while (num_started < ahead && !forwards(num_started)) start();
    emitter.complete(std::move(pending[s]));
    emitter.emit(Copy{std::move(fills[s])});
    if (num_started == round + 1 && num_started < num_rounds) start();
    Attend attend;
    Clear clear;
    for (const size_t t : rounds_[s]) {
      const size_t g = group_of_task_[t];
      const OutputGroup& group = groups_[g];
      sums.append_clears(g, &clear.items);
      for (const HeadRange& heads : kernel_heads(tasks_[t].tile.heads)) {
        const Tile& tile = tasks_[t].tile;
        attend.items.push_back({segment(forward_holdings_, tile, heads),
                                sub_block(sums.block(g), tile.queries, heads, shape_),
                                sub_block(group.lse, tile.queries, heads, shape_), sums.folds(t)});
      }
    }
    emitter.emit(std::move(clear));
    emitter.emit(std::move(attend));
    sums.exchange(s);
    start_outputs(round);
  }
  sums.finish();
  for (Completion& arriving : outputs) emitter.complete(std::move(arriving));
  program_.phases.push_back(emitter.finish(&program_.buffer(BufferId::arena)));
}

}  // namespace evenspan::plan
