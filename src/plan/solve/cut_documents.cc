#include "plan/solve/cut_documents.h"

#include <algorithm>

#include "plan/solve/rounds.h"

namespace evenspan::plan {
namespace {

// Chunks are cut at borders of tiles where a part has so many in the mean.
constexpr int64_t kLeastTiles = 16;

}  // namespace

std::vector<std::vector<PlacedSpan>> mirrored_chunks(DocumentId id, int64_t length, const std::vector<double>& parts,
                                                     int64_t tile) {
  const int64_t unit = length / static_cast<int64_t>(parts.size()) >= kLeastTiles * tile ? tile : 1;
  std::vector<std::vector<PlacedSpan>> chunks;
  int64_t begin = 0, end = length;  // of what is left between the chunks
  double before = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    auto& spans = chunks.emplace_back();
    before += parts[i];
    if (i + 1 == parts.size()) {
      spans.push_back(PlacedSpan{id, Span{begin, end}});
    } else {
      const int64_t cut = std::min(static_cast<int64_t>(before * static_cast<double>(length) / 2), length / 2);
      const int64_t first_end = std::max(begin, cut / unit * unit);
      const int64_t second_begin = std::clamp((length - cut + unit - 1) / unit * unit, first_end, end);
      spans.push_back(PlacedSpan{id, Span{begin, first_end}});
      spans.push_back(PlacedSpan{id, Span{second_begin, end}});
      begin = first_end;
      end = second_begin;
    }
    std::erase_if(spans, [](const PlacedSpan& placed) { return placed.span.empty(); });
  }
  return chunks;
}

size_t document_end(const std::vector<PlacedSpan>& spans, size_t first) {
  size_t last = first;
  while (last < spans.size() && spans[last].document == spans[first].document) ++last;
  return last;
}

RemoteKeys::RemoteKeys(const Request& request, const std::vector<std::vector<PlacedSpan>>& shared)
    : request_(request), shared_(shared) {
  for (size_t g = 0; g < shared_.size(); ++g) {
    for (size_t i = 0; i < shared_[g].size(); i = document_end(shared_[g], i)) {
      groups_of_[shared_[g][i].document].push_back(g);
    }
  }
  for (size_t g = 0; g < shared_.size(); ++g) num_rounds_.push_back(rounds_for(g));
}

// The keys that the spans of one document, from `first` to `last` of a group's, need from other groups.
std::vector<Span> RemoteKeys::needed_elsewhere(size_t group, size_t first, size_t last) const {
  std::vector<Span> needed, own;
  for (size_t i = first; i < last; ++i) {
    const PlacedSpan& placed = shared_[group][i];
    own.push_back(placed.span);
    needed.push_back(needed_keys(request_.documents[placed.document], placed.span));
  }
  own = union_of(std::move(own));
  std::vector<Span> remote;
  for (const Span& keys : union_of(std::move(needed))) {
    for (const Span& rest : subtract(keys, own)) remote.push_back(rest);
  }
  return remote;
}

int32_t RemoteKeys::rounds_for(size_t group) const {
  const auto num_groups = static_cast<int32_t>(shared_.size());
  const int32_t group_size = request_.num_ranks() / num_groups;
  RemoteWork work;
  work.kv_heads = (request_.shape.num_kv_heads + group_size - 1) / group_size;
  for (size_t i = 0; i < shared_[group].size();) {
    const size_t last = document_end(shared_[group], i);
    const std::vector<Span> remote = needed_elsewhere(group, i, last);
    for (const Span& keys : remote) work.keys += keys.size();
    for (; i < last; ++i) {
      if (remote.empty()) continue;
      const PlacedSpan& placed = shared_[group][i];
      work.pairs += static_cast<double>(num_pairs(request_.documents[placed.document], placed.span)) / group_size;
    }
  }
  return num_remote_rounds(request_, work);
}

std::vector<std::vector<Span>> RemoteKeys::rounds(size_t group, DocumentId document) const {
  const std::vector<size_t>& groups = groups_of_.at(document);
  const auto own = static_cast<size_t>(std::find(groups.begin(), groups.end(), group) - groups.begin());
  const auto num_others = static_cast<int64_t>(groups.size() - 1);
  const int64_t num_rounds = std::min<int64_t>(num_rounds_[group], num_others);
  std::vector<std::vector<Span>> rounds;
  for (int64_t round = 0; round < num_rounds; ++round) {
    const Span others = equal_part(num_others, round, num_rounds);
    std::vector<Span> keys;
    for (int64_t hop = others.begin + 1; hop <= others.end; ++hop) {
      const auto& spans = shared_[groups[(own + static_cast<size_t>(hop)) % groups.size()]];
      auto at = std::lower_bound(spans.begin(), spans.end(), PlacedSpan{document, Span{}});
      for (; at != spans.end() && at->document == document; ++at) keys.push_back(at->span);
    }
    rounds.push_back(union_of(std::move(keys)));
  }
  return rounds;
}

double RemoteKeys::attention_seconds(size_t group) const {
  double seconds = 0;
  for (size_t i = 0; i < shared_[group].size();) {
    const size_t last = document_end(shared_[group], i);
    if (groups_of_.at(shared_[group][i].document).size() > 1) seconds += attention_seconds(group, i, last);
    i = last;
  }
  return seconds;
}

double RemoteKeys::attention_seconds(size_t group, size_t first, size_t last) const {
  const DocumentId id = shared_[group][first].document;
  std::vector<Span> ranges;
  for (size_t i = first; i < last; ++i) ranges.push_back(shared_[group][i].span);
  for (const std::vector<Span>& round : rounds(group, id)) ranges.insert(ranges.end(), round.begin(), round.end());
  double seconds = 0;
  for (size_t i = first; i < last; ++i) {
    seconds += chunk_attention_seconds(request_, PlacedSpan{id, shared_[group][i].span}, ranges);
  }
  return seconds;
}

double chunk_attention_seconds(const Request& request, const PlacedSpan& queries, const std::vector<Span>& key_ranges) {
  const Document& document = request.documents[queries.document];
  const Span needed = needed_keys(document, queries.span);
  const int64_t rows = queries.span.size();
  double seconds = 0;
  for (const Span& range : key_ranges) {
    const Span keys = range.intersect(needed);
    if (keys.empty()) continue;
    const int64_t pairs = num_pairs(document, queries.span, keys);
    // A row's own key alone is the smallest causal tile, not a rectangle.
    const bool own_key = rows == 1 && keys == queries.span;
    if (pairs == rows * keys.size() && !own_key) {
      seconds += request.cost.rectangle_seconds(rows, keys.size());
      continue;
    }
    // About as slow as on a causal document whose rows see as many keys in the mean, and as slow as on one of so many
    // rows where the tile is causal.
    const int64_t length = std::clamp<int64_t>(2 * pairs / rows, 1, rows);
    seconds += request.cost.pair_seconds * static_cast<double>(pairs) * request.cost.slowdown(length);
  }
  return seconds;
}

}  // namespace evenspan::plan
