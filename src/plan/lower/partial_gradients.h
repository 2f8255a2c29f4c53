// The backward side of partial outputs: what their tiles need of the final output, and the gradients of their queries.
#pragma once

#include <map>
#include <vector>

#include "plan/lower/rank_lowering.h"

namespace evenspan::plan {

// A gradient that tiles and other ranks contribute to. Contributions are registered and later emitted in one order.
struct GradientSum {
  Span rows;
  HeadRange heads;
  std::vector<Contribution> contributions;
  Combination combination;
  Block first, second;  // grad_query; or grad_key and grad_value

  bool adds(size_t contribution) const { return combination.adds[contribution] != 0; }
  // Appends a contribution and returns its number.
  size_t add(Span part, HeadRange part_heads) {
    contributions.push_back({part, part_heads});
    return contributions.size() - 1;
  }
};

// In `sums` and `grad_outputs` below are the gradients of each output group's queries and outputs.
class PartialGradients {
 public:
  // REQUIRES: both outlive this.
  PartialGradients(RankLowering* rank, Emitter* emitter);

  // Registers what comes home from other ranks with the gradients of a round, or from own tiles that reach beyond the
  // home's rows.
  void register_arrivals(size_t round, std::vector<GradientSum>* sums);
  void register_own(std::vector<GradientSum>* sums);
  // Calls f(group) for each group that other contributions than tiles make up.
  template <class F>
  void for_each_home_group(F&& f) const {
    for (const auto& [partial, number] : numbers_) f(rank_.group_of(*partial, false));
  }

  // Computes delta, and adds to each round's exchange of operands what partials whose tiles come first in it need:
  // gradients of outputs, final log-sum-exps and deltas.
  void open(const std::vector<Block>& grad_outputs, std::vector<ExchangeBuilder>* builders);
  // Delta and final log-sum-exp of a group that leaves, for its tiles here. REQUIRES: open() was called.
  std::pair<Block, Block> finals_of(size_t group) const { return {deltas_.at(group), final_lses_.at(group)}; }

  // Adds to the exchange of a round's gradients those of queries that have their last tile there.
  void exchange(size_t round, const std::vector<GradientSum>& sums, ExchangeBuilder* builder) const;
  // Gradients of own tiles that reach beyond the home's rows.
  void append_own(const std::vector<GradientSum>& sums, Copy* copy, Accumulate* accumulate) const;

 private:
  // What one tile call wrote is still as exact in the input's type; sums travel in the accumulation type.
  Precision wire(const Partial& partial) const {
    return partial.num_tiles == 1 ? Precision::input : rank_.accumulation();
  }
  Block number_block(TensorName tensor, size_t group);  // of lse or delta
  void register_partials(size_t round, bool own, std::vector<GradientSum>* sums);

  RankLowering& rank_;
  const AttentionShape& shape_;
  Emitter& emitter_;
  std::vector<std::vector<const Partial*>> returns_;  // [first round], of this rank at either end
  std::map<const Partial*, size_t> numbers_;          // of contributions to sums, of those that come home
  std::map<size_t, Block> deltas_;                    // [group] that leaves, or that partials arrive for
  std::map<size_t, Block> final_lses_;                // [group] that leaves
};

}  // namespace evenspan::plan
