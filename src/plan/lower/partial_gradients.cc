#include "plan/lower/partial_gradients.h"

namespace evenspan::plan {

PartialGradients::PartialGradients(RankLowering* rank, Emitter* emitter)
    : rank_(*rank), shape_(rank->shape_), emitter_(*emitter), returns_(rank->rounds_.size()) {
  for (const Partial& partial : rank_.plan_.partials) {
    if (partial.from != rank_.rank_ && partial.to != rank_.rank_) continue;
    returns_[static_cast<size_t>(partial.first_round)].push_back(&partial);
  }
}

void PartialGradients::register_partials(size_t round, bool own, std::vector<GradientSum>* sums) {
  for (const Partial* partial : returns_[round]) {
    if (partial->to != rank_.rank_ || (partial->from == rank_.rank_) != own) continue;
    numbers_[partial] = (*sums)[rank_.group_of(*partial, false)].add(partial->rows, partial->heads);
  }
}

void PartialGradients::register_arrivals(size_t round, std::vector<GradientSum>* sums) {
  register_partials(round, false, sums);
}

void PartialGradients::register_own(std::vector<GradientSum>* sums) {
  for (size_t round = 0; round < returns_.size(); ++round) register_partials(round, true, sums);
}

Block PartialGradients::number_block(TensorName tensor, size_t group) {
  const auto& of = rank_.groups_[group];
  return emitter_.arena_block(tensor, Precision::accumulation, of.document, of.rows, of.heads);
}

void PartialGradients::open(const std::vector<Block>& grad_outputs, std::vector<ExchangeBuilder>* builders) {
  Delta delta;
  Copy own;
  for (size_t g = rank_.num_staying_; g < rank_.groups_.size(); ++g) {
    deltas_[g] = number_block(TensorName::delta, g);
    final_lses_[g] = number_block(TensorName::lse, g);
  }
  for (size_t round = 0; round < builders->size(); ++round) {
    auto& builder = (*builders)[round];
    for (const Partial* partial : rank_.partial_arrivals_[round]) {
      const size_t g = rank_.group_of(*partial, false);
      const auto& group = rank_.groups_[g];
      if (!deltas_.contains(g)) {
        deltas_[g] = number_block(TensorName::delta, g);
        delta.items.push_back(DeltaRows{deltas_[g], group.output, grad_outputs[g]});
      }
      const auto part = [&](const Block& block) { return sub_block(block, partial->rows, partial->heads, shape_); };
      if (partial->from == rank_.rank_) {
        const size_t to = rank_.group_of(*partial, true);
        own.items.push_back(BlockPair{part(deltas_.at(to)), part(deltas_.at(g))});
        own.items.push_back(BlockPair{part(final_lses_.at(to)), part(group.lse)});
        continue;
      }
      builder.send(partial->from, part(grad_outputs[g]), Precision::input);
      builder.send(partial->from, part(group.lse), Precision::accumulation);
      builder.send(partial->from, part(deltas_.at(g)), Precision::accumulation);
    }
    for (const Partial* partial : rank_.partial_departures_[round]) {
      if (partial->to == rank_.rank_) continue;
      const size_t g = rank_.group_of(*partial, true);
      const auto receive = [&](const Block& block, Precision wire) {
        builder.receive(partial->to, sub_block(block, partial->rows, partial->heads, shape_), wire, false);
      };
      receive(grad_outputs[g], Precision::input);
      receive(final_lses_.at(g), Precision::accumulation);
      receive(deltas_.at(g), Precision::accumulation);
    }
  }
  emitter_.emit(std::move(delta));
  emitter_.emit(std::move(own));
}

void PartialGradients::exchange(size_t round, const std::vector<GradientSum>& sums, ExchangeBuilder* builder) const {
  for (const Partial* partial : returns_[round]) {
    if (partial->from == partial->to) continue;
    const bool sends = partial->from == rank_.rank_;
    const GradientSum& sum = sums[rank_.group_of(*partial, sends)];
    const Block part = sub_block(sum.first, partial->rows, partial->heads, shape_);
    if (sends) {
      builder->send(partial->to, part, wire(*partial));
    } else {
      builder->receive(partial->from, part, wire(*partial), sum.adds(numbers_.at(partial)));
    }
  }
}

void PartialGradients::append_own(const std::vector<GradientSum>& sums, Copy* copy, Accumulate* accumulate) const {
  for (const auto& partials : returns_) {
    for (const Partial* partial : partials) {
      if (partial->from != partial->to) continue;
      const GradientSum& to = sums[rank_.group_of(*partial, false)];
      const GradientSum& from = sums[rank_.group_of(*partial, true)];
      const auto part = [&](const GradientSum& sum) {
        return sub_block(sum.first, partial->rows, partial->heads, shape_);
      };
      auto& pairs = to.adds(numbers_.at(partial)) ? accumulate->items : copy->items;
      pairs.push_back(BlockPair{part(to), part(from)});
    }
  }
}

}  // namespace evenspan::plan
