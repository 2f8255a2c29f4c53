#include "plan/outputs.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <span>
#include <tuple>

#include "plan/sorting.h"

namespace evenspan::plan {
namespace {

// The output of tiles of one rank whose rows overlap.
struct OutputPart {
  DocumentId document;
  HeadRange heads;
  Rank rank;
  Span rows;
  int32_t first_round, last_round;
  size_t first_tile, last_tile;  // among the document's sorted tiles
  bool is_shared = false;        // another rank computes some of it, too
};

bool any_query_is_away(const Plan& plan) {
  return std::any_of(plan.tasks.begin(), plan.tasks.end(), [&plan](const Task& task) {
    return plan.placement.row_of(task.rank, task.tile.document, task.tile.queries) < 0;
  });
}

// Those of each document, sorted by heads, rank and rows.
Buckets<const Task*> sorted_tiles(const Plan& plan) {
  const auto key = [](const Task* task) { return std::tie(task->tile.heads, task->rank, task->tile.queries); };
  return sorted_in_buckets(
      std::span(&plan.tasks, 1), static_cast<size_t>(plan.request.documents.size()),
      [](const Task& task) { return static_cast<size_t>(task.tile.document); },
      [&](const Task* a, const Task* b) { return key(a) < key(b); }, [](const Task& task) { return &task; });
}

// `tiles` are of one document.
void find_parts(std::span<const Task* const> tiles, std::vector<OutputPart>* parts) {
  parts->clear();
  for (size_t t = 0; t < tiles.size(); ++t) {
    const auto& [rank, round, tile] = *tiles[t];
    const bool joins = !parts->empty() && parts->back().heads == tile.heads && parts->back().rank == rank &&
                       tile.queries.begin < parts->back().rows.end;
    if (!joins) parts->push_back(OutputPart{tile.document, tile.heads, rank, tile.queries, round, round, t, t});
    OutputPart& part = parts->back();
    part.rows.end = std::max(part.rows.end, tile.queries.end);
    part.first_round = std::min(part.first_round, round);
    part.last_round = std::max(part.last_round, round);
    part.last_tile = t + 1;
  }
}

// Sorts parts, which are sorted by heads, by rows, too. Parts of one rank do not overlap, so of those that hang
// together each overlaps with one of another rank.
void mark_shared(std::vector<OutputPart>* parts) {
  for (auto first = parts->begin(), last = first; first != parts->end(); first = last) {
    while (last != parts->end() && last->heads == first->heads) ++last;
    sort_runs(first, last, [](const OutputPart& a, const OutputPart& b) { return a.rows < b.rows; });
    int64_t end = first->rows.end;  // of the rows so far
    for (auto part = first + 1; part != last; ++part) {
      if (part->rows.begin < end) part->is_shared = std::prev(part)->is_shared = true;
      end = std::max(end, part->rows.end);
    }
  }
}

// Appends what travels of a part's output. `tiles` are of its document.
void append_outputs(const OutputPart& part, std::span<const Task* const> tiles, Plan* plan,
                    std::vector<Move>* outputs) {
  if (plan->placement.row_of(part.rank, part.document, part.rows) >= 0) return;
  for (const auto& [home, piece] : plan->placement.homes(part.document, part.rows)) {
    if (!part.is_shared) {
      if (home == part.rank) continue;
      outputs->push_back(
          Move{part.last_round, part.rank, home, Operand::output, part.document, piece, part.heads, part.first_round});
      continue;
    }
    Partial partial{part.rank, home, part.document, piece, part.heads, part.first_round, part.last_round};
    for (size_t t = part.first_tile; t < part.last_tile; ++t) {
      partial.num_tiles += tiles[t]->tile.queries.overlaps(piece) ? 1 : 0;
    }
    plan->partials.push_back(partial);
  }
}

}  // namespace

std::vector<Move> find_outputs(Plan* plan) {
  std::vector<Move> outputs;
  if (!any_query_is_away(*plan)) return outputs;
  const Buckets<const Task*> tiles = sorted_tiles(*plan);
  std::vector<OutputPart> parts;
  for (size_t d = 0; d < tiles.ends.size(); ++d) {
    find_parts(tiles[d], &parts);
    mark_shared(&parts);
    for (const OutputPart& part : parts) append_outputs(part, tiles[d], plan, &outputs);
  }
  const auto key = [](const Partial& p) { return std::tie(p.document, p.heads, p.rows, p.to, p.from); };
  plan->partials = sorted_in_buckets(
                       std::span(&plan->partials, 1), static_cast<size_t>(plan->num_rounds),
                       [](const Partial& partial) { return static_cast<size_t>(partial.last_round); },
                       [&](const Partial& a, const Partial& b) { return key(a) < key(b); })
                       .items;
  return sorted_by_move(plan->num_rounds, plan->request.num_ranks(), std::span(&outputs, 1), std::identity());
}

}  // namespace evenspan::plan
