#include "plan/outputs.h"

#include <tuple>

namespace evenspan::plan {
namespace {

// The output of tiles of one rank whose rows overlap.
struct Part {
  DocumentId document;
  HeadRange heads;
  Rank rank;
  Span rows;
  int32_t first_stage, last_stage;
  size_t first_tile, last_tile;  // among the sorted tiles
  bool is_shared = false;        // another rank computes some of it, too
};

bool any_query_is_away(const Plan& plan) {
  return std::any_of(plan.tasks.begin(), plan.tasks.end(), [&plan](const Task& task) {
    return plan.placement.row_of(task.rank, task.tile.document, task.tile.queries) < 0;
  });
}

// By document, heads, rank and rows.
std::vector<const Task*> sorted_tiles(const std::vector<Task>& tasks) {
  std::vector<const Task*> tiles;
  tiles.reserve(tasks.size());
  for (const Task& task : tasks) tiles.push_back(&task);
  const auto key = [](const Task* task) {
    return std::tie(task->tile.document, task->tile.heads, task->rank, task->tile.queries);
  };
  std::stable_sort(tiles.begin(), tiles.end(), [&](const Task* a, const Task* b) { return key(a) < key(b); });
  return tiles;
}

std::vector<Part> parts_of(const std::vector<const Task*>& tiles) {
  std::vector<Part> parts;
  for (size_t t = 0; t < tiles.size(); ++t) {
    const auto& [rank, stage, tile] = *tiles[t];
    const bool joins = !parts.empty() && parts.back().document == tile.document && parts.back().heads == tile.heads &&
                       parts.back().rank == rank && tile.queries.begin < parts.back().rows.end;
    if (!joins) parts.push_back(Part{tile.document, tile.heads, rank, tile.queries, stage, stage, t, t});
    Part& part = parts.back();
    part.rows.end = std::max(part.rows.end, tile.queries.end);
    part.first_stage = std::min(part.first_stage, stage);
    part.last_stage = std::max(part.last_stage, stage);
    part.last_tile = t + 1;
  }
  return parts;
}

// Parts of one rank do not overlap, so of those that hang together each overlaps with one of another rank.
void mark_shared(std::vector<Part>* parts) {
  std::stable_sort(parts->begin(), parts->end(), [](const Part& a, const Part& b) {
    return std::tie(a.document, a.heads, a.rows) < std::tie(b.document, b.heads, b.rows);
  });
  int64_t end = 0;  // of the rows so far
  for (size_t i = 1; i < parts->size(); ++i) {
    Part& before = (*parts)[i - 1];
    Part& part = (*parts)[i];
    const bool same = part.document == before.document && part.heads == before.heads;
    end = same ? std::max(end, before.rows.end) : 0;
    if (same && part.rows.begin < end) part.is_shared = before.is_shared = true;
  }
}

}  // namespace

void add_outputs(Plan* plan) {
  if (!any_query_is_away(*plan)) return;
  const std::vector<const Task*> tiles = sorted_tiles(plan->tasks);
  std::vector<Part> parts = parts_of(tiles);
  mark_shared(&parts);
  for (const Part& part : parts) {
    if (plan->placement.row_of(part.rank, part.document, part.rows) >= 0) continue;
    for (const auto& [home, piece] : plan->placement.homes(part.document, part.rows)) {
      if (!part.is_shared) {
        if (home == part.rank) continue;
        plan->moves.push_back(Move{part.last_stage, part.rank, home, Operand::output, part.document, piece, part.heads,
                                   part.first_stage});
        continue;
      }
      Partial partial{part.rank, home, part.document, piece, part.heads, part.first_stage, part.last_stage};
      for (size_t t = part.first_tile; t < part.last_tile; ++t) {
        partial.num_tiles += tiles[t]->tile.queries.overlaps(piece) ? 1 : 0;
      }
      plan->partials.push_back(partial);
    }
  }
  std::sort(plan->partials.begin(), plan->partials.end(), [](const Partial& a, const Partial& b) {
    const auto key = [](const Partial& p) { return std::tie(p.last_stage, p.document, p.heads, p.rows, p.to, p.from); };
    return key(a) < key(b);
  });
}

}  // namespace evenspan::plan
