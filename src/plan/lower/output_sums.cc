#include "plan/lower/output_sums.h"

namespace evenspan::plan {

OutputSums::OutputSums(RankLowering* rank, Emitter* emitter)
    : rank_(*rank), emitter_(*emitter), contributions_(rank->groups_.size()), cleared_(rank->groups_.size(), 0) {
  number_contributions();
  for (size_t g = 0; g < rank_.groups_.size(); ++g) {
    auto& group = rank_.groups_[g];
    combinations_.push_back(combine(group.rows, group.heads, contributions_[g]));
    const Precision wide = rank_.accumulation();
    const bool beside = group.leaves || (combinations_.back().overlap && wide != Precision::input);
    blocks_.push_back(beside ? emitter_.arena_block(TensorName::output, wide, group.document, group.rows, group.heads)
                             : group.output);
    if (!group.leaves) continue;
    group.output = blocks_.back();
    group.lse = emitter_.arena_block(TensorName::lse, Precision::accumulation, group.document, group.rows, group.heads);
  }
}

void OutputSums::number_contributions() {
  const auto add = [this](size_t group, Span rows, HeadRange heads) {
    contributions_[group].push_back({rows, heads});
    return contributions_[group].size() - 1;
  };
  const auto add_partials = [&](size_t round, bool own) {
    for (const Partial* partial : rank_.partial_arrivals_[round]) {
      if ((partial->from == rank_.rank_) != own) continue;
      partial_number_[partial] = add(rank_.group_of(*partial, false), partial->rows, partial->heads);
    }
  };
  task_number_.resize(rank_.tasks_.size());
  const size_t num_rounds = rank_.rounds_.size();
  for (size_t round = 0; round < num_rounds; ++round) {
    for (const size_t t : rank_.rounds_[round]) {
      const Tile& tile = rank_.tasks_[t].tile;
      task_number_[t] = add(rank_.group_of_task_[t], tile.queries, tile.heads);
    }
    add_partials(round, true);
    if (round > 0) add_partials(round - 1, false);
  }
  add_partials(num_rounds - 1, false);
}

void OutputSums::append_clears(size_t group, std::vector<Block>* blocks) {
  if (!combinations_[group].clear || cleared_[group] != 0) return;
  cleared_[group] = 1;
  blocks->push_back(blocks_[group]);
  blocks->push_back(rank_.groups_[group].lse);
}

void OutputSums::merge_own(size_t round) {
  Clear clear;
  Copy copy;
  Merge merge;
  for (const Partial* partial : rank_.partial_departures_[round]) {
    if (partial->to != rank_.rank_) continue;
    const auto part = [&](size_t group, const Block& of) {
      return std::pair(sub_block(of, partial->rows, partial->heads, rank_.shape_),
                       sub_block(rank_.groups_[group].lse, partial->rows, partial->heads, rank_.shape_));
    };
    const size_t from = rank_.group_of(*partial, true), to = rank_.group_of(*partial, false);
    const auto [from_output, from_lse] = part(from, blocks_[from]);
    const auto [output, lse] = part(to, blocks_[to]);
    append_clears(to, &clear.items);
    if (folds(to, partial_number_.at(partial))) {
      merge.items.push_back(PartialPair{output, lse, from_output, from_lse});
    } else {
      copy.items.push_back(BlockPair{output, from_output});
      copy.items.push_back(BlockPair{lse, from_lse});
    }
  }
  emitter_.emit(std::move(clear));
  emitter_.emit(std::move(copy));
  emitter_.emit(std::move(merge));
}

void OutputSums::complete() {
  Clear clear;
  for (const size_t group : under_way_) append_clears(group, &clear.items);
  emitter_.emit(std::move(clear));
  emitter_.complete(std::move(pending_));
  pending_ = {};
  under_way_.clear();
}

void OutputSums::exchange(size_t round) {
  merge_own(round);
  complete();
  ExchangeBuilder builder(&emitter_);
  const auto part = [this](const Block& block, const Partial& partial) {
    return sub_block(block, partial.rows, partial.heads, rank_.shape_);
  };
  const Precision wire = rank_.accumulation();
  for (const Partial* partial : rank_.partial_departures_[round]) {
    if (partial->to == rank_.rank_) continue;
    const size_t group = rank_.group_of(*partial, true);
    builder.send(partial->to, part(blocks_[group], *partial), wire);
    builder.send(partial->to, part(rank_.groups_[group].lse, *partial), Precision::accumulation);
  }
  for (const Partial* partial : rank_.partial_arrivals_[round]) {
    if (partial->from == rank_.rank_) continue;
    const size_t group = rank_.group_of(*partial, false);
    const Block output = part(blocks_[group], *partial), lse = part(rank_.groups_[group].lse, *partial);
    under_way_.push_back(group);
    if (folds(group, partial_number_.at(partial))) {
      builder.receive_partial(partial->from, output, lse, wire);
    } else {
      builder.receive(partial->from, output, wire, false);
      builder.receive(partial->from, lse, Precision::accumulation, false);
    }
  }
  pending_ = builder.start();
}

void OutputSums::narrow(int32_t round) {
  Copy copy;
  for (size_t g = 0; g < rank_.num_staying_; ++g) {
    const auto& group = rank_.groups_[g];
    if (group.last_round == round && blocks_[g] != group.output) {
      copy.items.push_back(BlockPair{group.output, blocks_[g]});
    }
  }
  emitter_.emit(std::move(copy));
}

void OutputSums::finish() {
  complete();
  narrow(rank_.plan_.num_rounds);
}

}  // namespace evenspan::plan
