// The inner half of a hierarchy: the ranks of a group share its tokens outside attention and split its heads inside.
#include "evenspan/core/error.h"
#include "plan/strategy/parts.h"

namespace evenspan::plan {

int32_t ranks_per_group(const Request& request) {
  if (request.options.ranks_per_group > 0) return request.options.ranks_per_group;
  int32_t size = std::min(request.topology.ranks_per_node(), request.num_ranks());
  while (request.num_ranks() % size != 0) --size;
  return size;
}

Request group_request(const Request& request, int32_t ranks_per_group) {
  Request outer = request;
  const int32_t num_groups = request.num_ranks() / ranks_per_group;
  outer.topology = make_topology(num_groups);
  // All ranks of a group send at once.
  Level& level = outer.topology.levels.back();
  level.latency_seconds = request.topology.levels.back().latency_seconds;
  level.bytes_per_second = ranks_per_group * request.topology.levels.back().bytes_per_second;
  return outer;
}

namespace {

// A member's part of a group's task.
void split_task(const Request& request, const Placement& outer, const Task& task, int32_t group_size,
                const HeadSplit& split, int32_t member, std::vector<Task>* tasks) {
  const Rank rank(task.rank * group_size + member);
  Tile tile = task.tile;
  tile.heads = split.heads(member);
  if (split.num_row_parts == 1) {
    tasks->push_back(Task{rank, task.round, tile});
    return;
  }
  // Row parts are cut from the spans of the outer placement, the same for every tile of a row.
  for (const Placement::Piece& home : outer.homes(tile.document, tile.queries)) {
    for (const Span& whole : outer.spans_of(home.rank, tile.document)) {
      for (const Span& rows : split.rows(member, whole)) {
        attend(request, rank, task.round, PlacedSpan{tile.document, rows.intersect(home.span)}, tile.keys, tile.heads,
               tasks);
      }
    }
  }
}

}  // namespace

Draft split_heads(const Request& request, const Draft& outer, int32_t group_size) {
  const HeadSplit split = head_split(request, group_size);
  const int32_t num_groups = outer.placement.num_ranks();
  std::vector<std::vector<PlacedSpan>> spans;
  for (int32_t g = 0; g < num_groups; ++g) {
    for (auto& part : contiguous_spans(outer.placement.spans(Rank(g)), group_size)) spans.push_back(std::move(part));
  }
  Draft draft{Placement(request.documents, std::move(spans)), {}, {}};
  if (split.num_row_parts == 1) draft.tasks.reserve(outer.tasks.size() * static_cast<size_t>(group_size));
  for (auto first = outer.tasks.begin(), last = first; first != outer.tasks.end(); first = last) {
    while (last != outer.tasks.end() && last->rank == first->rank) ++last;
    for (int32_t member = 0; member < group_size; ++member) {
      for (auto task = first; task != last; ++task) {
        split_task(request, outer.placement, *task, group_size, split, member, &draft.tasks);
      }
    }
  }
  if (outer.moves.empty()) return draft;
  // Relays: a member forwards the kv heads of its part, so it first gets those of all its group's tokens.
  for (int32_t r = 0; r < request.num_ranks(); ++r) {
    const HeadRange heads = request.shape.kv_heads(split.heads(r % group_size));
    for (int32_t home = r - r % group_size; home < r - r % group_size + group_size; ++home) {
      if (home == r) continue;
      for (const PlacedSpan& placed : draft.placement.spans(Rank(home))) {
        draft.moves.push_back(Move{0, Rank(home), Rank(r), Operand::key_value, placed.document, placed.span, heads});
      }
    }
  }
  for (const Move& move : outer.moves) {
    EVENSPAN_CHECK_EQ(move.operand == Operand::key_value, true);
    for (int32_t member = 0; member < group_size; ++member) {
      // In the pieces in which they came, so that each is in one place.
      for (const auto& [home, rows] : draft.placement.homes(move.document, move.rows)) {
        draft.moves.push_back(Move{move.round, Rank(move.from * group_size + member),
                                   Rank(move.to * group_size + member), Operand::key_value, move.document, rows,
                                   request.shape.kv_heads(split.heads(member))});
      }
    }
  }
  return draft;
}

Traffic split_heads_traffic(const Request& request, const Placement& placement, int32_t group_size,
                            const std::vector<std::vector<PlacedSpan>>& group_spans) {
  const AttentionShape& shape = request.shape;
  const HeadSplit split = head_split(request, group_size);
  int64_t elements = 0;  // times head_dim
  for (int32_t r = 0; r < request.num_ranks(); ++r) {
    const std::vector<PlacedSpan>& of_group = group_spans[static_cast<size_t>(r / group_size)];
    const HeadRange heads = split.heads(r % group_size);
    const HeadRange kv_heads = shape.kv_heads(heads);
    for (size_t i = 0; i < of_group.size();) {
      const DocumentId document = of_group[i].document;
      std::vector<Span> spans;
      for (; i < of_group.size() && of_group[i].document == document; ++i) spans.push_back(of_group[i].span);
      const auto own = placement.spans_of(Rank(r), document);
      std::vector<Span> needed;
      for (const Span& whole : union_of(std::move(spans))) {
        for (const Span& rows : split.rows(r % group_size, whole)) {
          needed.push_back(needed_keys(request.documents[document], rows));
          for (const Span& remote : subtract(rows, own)) elements += remote.size() * 2 * heads.size();  // query, output
        }
      }
      for (const Span& keys : union_of(std::move(needed))) {
        for (const Span& remote : subtract(keys, own)) elements += remote.size() * 2 * kv_heads.size();
      }
    }
  }
  return Traffic{elements * shape.head_dim * num_bytes(shape.element), 3};
}

Traffic split_heads_traffic(const Request& request, const Placement& placement, int32_t group_size) {
  std::vector<std::vector<PlacedSpan>> group_spans(static_cast<size_t>(request.num_ranks() / group_size));
  for (int32_t r = 0; r < request.num_ranks(); ++r) {
    auto& of_group = group_spans[static_cast<size_t>(r / group_size)];
    of_group.insert(of_group.end(), placement.spans(Rank(r)).begin(), placement.spans(Rank(r)).end());
  }
  for (auto& of_group : group_spans) std::sort(of_group.begin(), of_group.end());
  return split_heads_traffic(request, placement, group_size, group_spans);
}

}  // namespace evenspan::plan
