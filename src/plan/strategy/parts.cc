#include "plan/strategy/parts.h"

#include "evenspan/core/error.h"

namespace evenspan::plan {

std::vector<PlacedSpan> whole_documents(const Documents& documents) {
  std::vector<PlacedSpan> stream;
  for (int64_t d = 0; d < documents.size(); ++d) {
    stream.push_back(PlacedSpan{DocumentId(d), Span{0, documents[DocumentId(d)].length}});
  }
  return stream;
}

std::vector<std::vector<PlacedSpan>> contiguous_spans(const std::vector<PlacedSpan>& stream, int32_t num_parts) {
  int64_t num_tokens = 0;
  for (const PlacedSpan& placed : stream) num_tokens += placed.span.size();
  std::vector<std::vector<PlacedSpan>> parts(static_cast<size_t>(num_parts));
  int64_t first = 0;  // of the placed span, in the stream
  int64_t part = 0;
  for (const PlacedSpan& placed : stream) {
    const Span here{first, first + placed.span.size()};
    for (; part < num_parts; ++part) {
      const Span cut = equal_part(num_tokens, part, num_parts);
      const Span common = here.intersect(cut);
      const int64_t shift = placed.span.begin - first;
      if (!common.empty()) {
        parts[static_cast<size_t>(part)].push_back(
            PlacedSpan{placed.document, Span{common.begin + shift, common.end + shift}});
      }
      if (cut.end > here.end) break;  // the part goes on in the next span
    }
    first = here.end;
  }
  return parts;
}

void attend(const Request& request, Rank rank, int32_t stage, const PlacedSpan& queries, Span keys, HeadRange heads,
            std::vector<Task>* tasks) {
  std::vector<Tile> tiles;
  append_mask_tiles(request.documents[queries.document], queries.document, queries.span, keys, heads, &tiles);
  for (const Tile& tile : tiles) tasks->push_back(Task{rank, stage, tile});
}

std::vector<Task> tasks_with_queries_at_home(const Request& request, const Placement& placement) {
  std::vector<Task> tasks;
  for (int32_t r = 0; r < placement.num_ranks(); ++r) {
    for (const PlacedSpan& queries : placement.spans(Rank(r))) {
      const std::vector<Span> own = placement.spans_of(Rank(r), queries.document);
      const Span needed = needed_keys(request.documents[queries.document], queries.span);
      for (const Span& keys : own) attend(request, Rank(r), 0, queries, keys, all_heads(request), &tasks);
      for (const Span& keys : subtract(needed, own)) {
        attend(request, Rank(r), 1, queries, keys, all_heads(request), &tasks);
      }
    }
  }
  return tasks;
}

Draft ring_draft(const Request& request, Placement placement) {
  const int32_t num_ranks = placement.num_ranks();
  Draft draft{std::move(placement), {}, {}};
  for (int32_t r = 0; r < num_ranks; ++r) {
    for (int32_t stage = 0; stage < num_ranks; ++stage) {
      const Rank origin((r - stage + num_ranks) % num_ranks);
      for (const PlacedSpan& keys : draft.placement.spans(origin)) {
        if (stage > 0) {
          draft.moves.push_back(Move{stage, Rank((r - 1 + num_ranks) % num_ranks), Rank(r), Operand::key_value,
                                     keys.document, keys.span, all_kv_heads(request)});
        }
        for (const Span& queries : draft.placement.spans_of(Rank(r), keys.document)) {
          attend(request, Rank(r), stage, PlacedSpan{keys.document, queries}, keys.span, all_heads(request),
                 &draft.tasks);
        }
      }
    }
  }
  return draft;
}

Traffic ring_traffic(const Request& request, const Placement& placement) {
  const AttentionShape& shape = request.shape;
  const int64_t token_bytes = int64_t{2} * shape.num_kv_heads * shape.head_dim * num_bytes(shape.element);
  return Traffic{(placement.num_ranks() - 1) * request.documents.total_tokens() * token_bytes,
                 placement.num_ranks() - 1};
}

int64_t remote_key_tokens(const Request& request, const Placement& placement) {
  return remote_key_tokens(request, placement, [](Rank, DocumentId) { return true; });
}

int64_t remote_key_tokens(const Request& request, const Placement& placement,
                          const std::function<bool(Rank, DocumentId)>& counts) {
  int64_t num_tokens = 0;
  for (int32_t r = 0; r < placement.num_ranks(); ++r) {
    std::vector<Span> needed;
    const auto& spans = placement.spans(Rank(r));
    for (size_t s = 0; s < spans.size(); ++s) {
      const DocumentId document = spans[s].document;
      if (!counts(Rank(r), document)) continue;
      needed.push_back(needed_keys(request.documents[document], spans[s].span));
      if (s + 1 < spans.size() && spans[s + 1].document == document) continue;
      const std::vector<Span> own = placement.spans_of(Rank(r), document);
      for (const Span& keys : union_of(std::move(needed))) {
        for (const Span& remote : subtract(keys, own)) num_tokens += remote.size();
      }
      needed.clear();
    }
  }
  return num_tokens;
}

}  // namespace evenspan::plan
