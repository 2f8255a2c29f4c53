// What the tiles of a rank read that is not at home there.
#pragma once

#include <span>
#include <vector>

#include "evenspan/plan/plan.h"

namespace evenspan::plan {

// One for all ranks of a placement, one after another.
class NeedFinder {
 public:
  // REQUIRES: both outlive this.
  NeedFinder(const Request& request, const Placement& placement) : request_(request), placement_(placement) {}

  // Appends the needs of a rank, whose tasks are `tasks`: each row of an operand once, straight from its home, at the
  // first round that reads it.
  void append(Rank rank, std::span<const Task> tasks, std::vector<Need>* needs);

 private:
  // A tile's operand that is not at home on the tile's rank.
  struct Use {
    DocumentId document;
    HeadRange heads;
    int32_t round;
    Span rows;
    bool same_operand(const Use& other) const { return document == other.document && heads == other.heads; }
    friend auto operator<=>(const Use&, const Use&) = default;
  };
  void find_uses(Rank rank, std::span<const Task> tasks, Operand operand);
  void append_needs(Rank rank, Operand operand, std::span<const Use> uses, std::vector<Need>* needs);
  void count_tiles(std::span<const Use> uses, std::span<Need> needs);

  const Request& request_;
  const Placement& placement_;
  // Of one operand at a time; here, since most documents are short and memory for each of them takes longer than it.
  std::vector<Use> uses_;  // sorted
  std::vector<Span> present_, rows_;
};

}  // namespace evenspan::plan
