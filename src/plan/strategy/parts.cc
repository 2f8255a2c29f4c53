#include "plan/strategy/parts.h"

#include <algorithm>
#include <span>

#include "evenspan/core/error.h"
#include "plan/mask_tiles.h"
#include "plan/solve/rounds.h"

namespace evenspan::plan {

RowBytes::RowBytes(const AttentionShape& shape)
    : query(int64_t{shape.num_heads} * shape.head_dim * num_bytes(shape.element)),
      key_value(int64_t{2} * shape.num_kv_heads * shape.head_dim * num_bytes(shape.element)),
      partial(int64_t{shape.num_heads} * (shape.head_dim + 1) * num_bytes(accumulation_type(shape.element))) {}

std::vector<PlacedSpan> whole_documents(const Documents& documents) {
  std::vector<PlacedSpan> stream;
  stream.reserve(static_cast<size_t>(documents.size()));
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

void attend(const Request& request, Rank rank, int32_t round, const PlacedSpan& queries, Span keys, HeadRange heads,
            std::vector<Task>* tasks) {
  for_each_mask_tile(request.documents[queries.document], queries.document, queries.span, keys, heads,
                     [&](const Tile& tile) {
                       tasks->push_back(Task{rank, round, tile});
                     });
}

namespace {

// Keys of other ranks that the queries of `spans`, all of one document, need: by the round in which they come, in the
// order of a ring, those of the next rank first, so that in no round many ask the same one.
std::vector<std::vector<Span>> keys_by_round(const Request& request, const Placement& placement, Rank rank,
                                             std::span<const PlacedSpan> spans) {
  const DocumentId document = spans.front().document;
  RemoteWork work{0, request.shape.num_kv_heads, 0};
  std::vector<Span> needed;
  for (const PlacedSpan& queries : spans) {
    needed.push_back(needed_keys(request.documents[document], queries.span));
    work.pairs += static_cast<double>(num_pairs(request.documents[document], queries.span));
  }
  std::vector<Placement::Piece> pieces;
  for (const Span& keys : union_of(std::move(needed))) {
    for (const Placement::Piece& piece : placement.homes(document, keys)) {
      if (piece.rank == rank) continue;
      pieces.push_back(piece);
      work.keys += piece.span.size();
    }
  }
  const int32_t num_ranks = placement.num_ranks();
  const auto hops = [&](const Placement::Piece& piece) { return (piece.rank - rank.value + num_ranks) % num_ranks; };
  std::stable_sort(pieces.begin(), pieces.end(),
                   [&](const Placement::Piece& a, const Placement::Piece& b) { return hops(a) < hops(b); });
  std::vector<std::vector<Span>> rounds(static_cast<size_t>(num_remote_rounds(request, work)));
  int64_t before = 0;
  for (const Placement::Piece& piece : pieces) {
    rounds[static_cast<size_t>(before * static_cast<int64_t>(rounds.size()) / work.keys)].push_back(piece.span);
    before += piece.span.size();
  }
  for (auto& keys : rounds) keys = union_of(std::move(keys));
  return rounds;
}

}  // namespace

std::vector<Task> tasks_with_queries_at_home(const Request& request, const Placement& placement) {
  return tasks_with_queries_at_home(request, placement, [](DocumentId) { return true; });
}

std::vector<Task> tasks_with_queries_at_home(const Request& request, const Placement& placement,
                                             const std::function<bool(DocumentId)>& counts) {
  std::vector<Task> tasks;
  for (int32_t r = 0; r < placement.num_ranks(); ++r) {
    const std::vector<PlacedSpan>& spans = placement.spans(Rank(r));
    for (size_t first = 0, last = 0; first < spans.size(); first = last) {
      while (last < spans.size() && spans[last].document == spans[first].document) ++last;
      if (!counts(spans[first].document)) continue;
      const auto of_document = std::span(spans).subspan(first, last - first);
      const auto rounds = keys_by_round(request, placement, Rank(r), of_document);
      for (const PlacedSpan& queries : of_document) {
        for (const PlacedSpan& keys : of_document) {
          attend(request, Rank(r), 0, queries, keys.span, all_heads(request), &tasks);
        }
        for (size_t round = 0; round < rounds.size(); ++round) {
          for (const Span& keys : rounds[round]) {
            attend(request, Rank(r), 1 + static_cast<int32_t>(round), queries, keys, all_heads(request), &tasks);
          }
        }
      }
    }
  }
  return tasks;
}

Draft ring_draft(const Request& request, Placement placement) {
  const int32_t num_ranks = placement.num_ranks();
  Draft draft{std::move(placement), {}, {}};
  size_t num_spans = 0;
  for (int32_t r = 0; r < num_ranks; ++r) num_spans += draft.placement.spans(Rank(r)).size();
  draft.moves.reserve(num_spans * static_cast<size_t>(num_ranks - 1));
  for (int32_t round = 1; round < num_ranks; ++round) {
    for (int32_t from = 0; from < num_ranks; ++from) {
      for (const PlacedSpan& keys : draft.placement.spans(Rank((from + 1 - round + num_ranks) % num_ranks))) {
        draft.moves.push_back(Move{round, Rank(from), Rank((from + 1) % num_ranks), Operand::key_value, keys.document,
                                   keys.span, all_kv_heads(request)});
      }
    }
  }
  for (int32_t r = 0; r < num_ranks; ++r) {
    for (int32_t round = 0; round < num_ranks; ++round) {
      for (const PlacedSpan& keys : draft.placement.spans(Rank((r - round + num_ranks) % num_ranks))) {
        for (const Span& queries : draft.placement.spans_of(Rank(r), keys.document)) {
          attend(request, Rank(r), round, PlacedSpan{keys.document, queries}, keys.span, all_heads(request),
                 &draft.tasks);
        }
      }
    }
  }
  return draft;
}

Traffic ring_traffic(const Request& request, const Placement& placement) {
  const int64_t token_bytes = RowBytes(request.shape).key_value;
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
      const auto own = placement.spans_of(Rank(r), document);
      for (const Span& keys : union_of(std::move(needed))) {
        for (const Span& remote : subtract(keys, own)) num_tokens += remote.size();
      }
      needed.clear();
    }
  }
  return num_tokens;
}

}  // namespace evenspan::plan
