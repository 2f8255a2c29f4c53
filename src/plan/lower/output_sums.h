// The outputs of a rank's tiles in forward: where tiles write, what leaves as a partial result, and what arrives as
// one.
#pragma once

#include <map>
#include <vector>

#include "plan/lower/rank_lowering.h"

namespace evenspan::plan {

// Partials that the tiles of a round complete leave behind these tiles, travel under those of the next round, and are
// merged behind them.
class OutputSums {
 public:
  // Lays out the partial results of the rank's groups. REQUIRES: both outlive this.
  OutputSums(RankLowering* rank, Emitter* emitter);

  // Where the tiles of a group write: straight into the final output, or, when it leaves or several contributions fold
  // into rows of a narrower type, beside it.
  const Block& block(size_t group) const { return blocks_[group]; }
  bool folds(size_t task) const { return folds(rank_.group_of_task_[task], task_number_[task]); }
  // Appends what must be cleared before the group's first contribution, once.
  void append_clears(size_t group, std::vector<Block>* blocks);

  // Behind the tiles of a round: merges what came under them, and sends what they complete.
  void exchange(size_t round);
  // Puts what was summed beside the final outputs there, of groups whose last round it is.
  void narrow(int32_t round);
  // Behind the last round: merges what is under way, and does the same for groups that partials of others make up.
  void finish();

 private:
  bool folds(size_t group, size_t number) const { return combinations_[group].adds[number] != 0; }
  void number_contributions();
  void merge_own(size_t round);
  void complete();

  RankLowering& rank_;
  Emitter& emitter_;
  std::vector<Block> blocks_;  // [group]
  std::vector<Combination> combinations_;
  std::vector<std::vector<Contribution>> contributions_;
  std::vector<char> cleared_;
  // Numbers of contributions in their groups, in program order.
  std::vector<size_t> task_number_;
  std::map<const Partial*, size_t> partial_number_;
  Completion pending_;             // the exchange of the round before
  std::vector<size_t> under_way_;  // groups that it contributes to
};

}  // namespace evenspan::plan
