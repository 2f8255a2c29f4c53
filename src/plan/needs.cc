#include "plan/needs.h"

#include <algorithm>
#include <functional>

#include "plan/sorting.h"

namespace evenspan::plan {

void NeedFinder::append(Rank rank, std::span<const Task> tasks, std::vector<Need>* needs) {
  for (const Operand operand : {Operand::query, Operand::key_value}) {
    find_uses(rank, tasks, operand);
    needs->reserve(needs->size() + uses_.size());
    for (size_t first = 0, last = 0; first < uses_.size(); first = last) {
      while (last < uses_.size() && uses_[last].same_operand(uses_[first])) ++last;
      append_needs(rank, operand, std::span(uses_).subspan(first, last - first), needs);
    }
  }
}

void NeedFinder::find_uses(Rank rank, std::span<const Task> tasks, Operand operand) {
  uses_.clear();
  for (const auto& [task_rank, round, tile] : tasks) {
    const Span& rows = operand == Operand::query ? tile.queries : tile.keys;
    if (placement_.row_of(rank, tile.document, rows) >= 0) continue;
    const HeadRange heads = operand == Operand::query ? tile.heads : request_.shape.kv_heads(tile.heads);
    uses_.push_back({tile.document, heads, round, rows});
  }
  const auto num_documents = static_cast<size_t>(request_.documents.size());
  if (num_documents / 16 > uses_.size()) {
    std::sort(uses_.begin(), uses_.end());
  } else if (!uses_.empty()) {
    uses_ = sorted_in_buckets(
                std::span(&uses_, 1), num_documents, [](const Use& use) { return static_cast<size_t>(use.document); },
                std::less<>())
                .items;
  }
}

// What the uses of one operand need from elsewhere, once, at the first round that reads it.
void NeedFinder::append_needs(Rank rank, Operand operand, std::span<const Use> uses, std::vector<Need>* needs) {
  const auto& [document, heads, first_round, first_rows] = uses.front();
  const size_t first_need = needs->size();
  const auto own = placement_.spans_of(rank, document);
  present_.assign(own.begin(), own.end());
  for (size_t begin = 0; begin < uses.size();) {
    const int32_t round = uses[begin].round;
    rows_.clear();
    for (; begin < uses.size() && uses[begin].round == round; ++begin) rows_.push_back(uses[begin].rows);
    unite(&rows_);
    for (const Span& whole : rows_) {
      for_each_uncovered(whole, present_, [&](const Span& missing) {
        for (const auto& [home, piece] : placement_.homes(document, missing)) {
          needs->push_back(Need{Move{round, home, rank, operand, document, piece, heads}, 0, round});
        }
      });
    }
    if (begin == uses.size()) break;
    present_.insert(present_.end(), rows_.begin(), rows_.end());
    unite(&present_);
  }
  count_tiles(uses, std::span(*needs).subspan(first_need));
}

// Fills in the needs' num_tiles and last_round from the uses of their operand.
void NeedFinder::count_tiles(std::span<const Use> uses, std::span<Need> needs) {
  if (uses.size() == 1) {
    for (Need& need : needs) need.num_tiles = 1;
    return;
  }
  rows_.clear();
  for (const Use& use : uses) rows_.push_back(use.rows);
  for (const Need& need : needs) rows_.push_back(need.move.rows);
  unite(&rows_, Join::overlapping);
  for (const Span& whole : rows_) {
    int32_t last_round = 0;
    for (const Use& use : uses) {
      if (use.rows.overlaps(whole)) last_round = std::max(last_round, use.round);
    }
    for (Need& need : needs) {
      if (!need.move.rows.overlaps(whole)) continue;
      need.last_round = last_round;
      for (const Use& use : uses) need.num_tiles += use.rows.overlaps(need.move.rows) ? 1 : 0;
    }
  }
}

}  // namespace evenspan::plan
