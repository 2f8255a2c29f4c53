// Core attention disaggregation (CAD, arXiv 2510.18121): every rank is home to equal tokens of one stream, and whoever
// has less attention than the mean takes queries from those who have more: the queries travel there with the keys that
// are not there yet, the outputs back. Which ones is decided greedily, by the most work per byte.
#include <array>
#include <map>
#include <numeric>
#include <set>
#include <tuple>

#include "plan/strategy/parts.h"
#include "plan/strategy/table.h"

namespace evenspan::plan {
namespace {

// Ranks keep up to this part more than the mean: the last percent of balance costs the most bytes.
constexpr int64_t kTolerancePercent = 1;

// Queries, with all keys that they see, and the rank that attends to them.
struct Shard {
  PlacedSpan queries;
  Rank rank;
};

int64_t pairs_of(const Request& request, const PlacedSpan& queries) {
  return num_pairs(request.documents[queries.document], queries.span);
}

// Moves shards from ranks with more than most_ pairs to ranks with less than the mean, the emptiest first. Shards that
// are alike, of which a rank that is filled has no keys, are looked at once for all.
class Balancer {
 public:
  Balancer(const Request& request, const Placement& placement)
      : request_(request),
        placement_(placement),
        pairs_(static_cast<size_t>(placement.num_ranks()), 0),
        shards_of_(static_cast<size_t>(request.documents.size())) {
    const RowBytes bytes(request.shape);
    row_bytes_ = 2 * bytes.query;
    key_bytes_ = bytes.key_value;
    for (int32_t r = 0; r < placement.num_ranks(); ++r) {
      for (const PlacedSpan& placed : placement.spans(Rank(r))) {
        shards_of_[static_cast<size_t>(placed.document.value)].push_back(at_home_.size());
        at_home_.push_back(Shard{placed, Rank(r)});
        pairs_[static_cast<size_t>(r)] += pairs_of(request, placed);
      }
    }
    mean_ = std::accumulate(pairs_.begin(), pairs_.end(), int64_t{0}) / placement.num_ranks();
    most_ = mean_ + mean_ / 100 * kTolerancePercent;
    for (size_t s = 0; s < at_home_.size(); ++s) alike_[kind_of(at_home_[s])].insert(s);
  }

  std::vector<Shard> run() {
    std::vector<int32_t> ranks(pairs_.size());
    std::iota(ranks.begin(), ranks.end(), 0);
    std::stable_sort(ranks.begin(), ranks.end(), [this](int32_t a, int32_t b) { return pairs(a) < pairs(b); });
    for (const int32_t to : ranks) fill(to);
    std::vector<Shard> all;
    for (const Shard& shard : at_home_) {
      if (!shard.queries.span.empty()) all.push_back(shard);
    }
    all.insert(all.end(), moved_.begin(), moved_.end());
    return all;
  }

 private:
  // What a shard's pairs and bytes depend on.
  using Kind = std::tuple<Rank, int64_t, MaskKind, int64_t, Span>;

  struct Candidate {
    size_t shard = 0;  // in at_home_
    Span rows;         // an end of it, or all
    int64_t pairs = 0;
    double pairs_per_byte = 0;
  };

  int64_t& pairs(int32_t rank) { return pairs_[static_cast<size_t>(rank)]; }

  Kind kind_of(const Shard& shard) const {
    const Document& document = request_.documents[shard.queries.document];
    return {shard.rank, document.length, document.mask.kind, document.mask.extent, shard.queries.span};
  }

  void leave_alike(size_t s) {
    const auto kind = alike_.find(kind_of(at_home_[s]));
    if (kind == alike_.end()) return;
    kind->second.erase(s);
    if (kind->second.empty()) alike_.erase(kind);
  }

  // From now on until the rank is filled, the document's shards differ from others like them.
  void look_at_each(DocumentId document) {
    for (const size_t s : shards_of_[static_cast<size_t>(document.value)]) {
      if (at_home_[s].queries.span.empty()) continue;
      leave_alike(s);
      each_.insert(s);
    }
  }

  void fill(int32_t to) {
    if (pairs(to) >= mean_) return;
    for (const PlacedSpan& placed : placement_.spans(Rank(to))) {
      if (shards_of_[static_cast<size_t>(placed.document.value)].size() > 1) look_at_each(placed.document);
    }
    while (pairs(to) < mean_) {
      const Candidate best = best_candidate(to);
      if (best.pairs == 0) break;
      look_at_each(at_home_[best.shard].queries.document);
      move(best, to);
      if (at_home_[best.shard].queries.span.empty()) each_.erase(best.shard);
    }
    for (const size_t s : each_) alike_[kind_of(at_home_[s])].insert(s);
    each_.clear();
    present_.clear();
  }

  // The first of the best.
  Candidate best_candidate(int32_t to) {
    Candidate best;
    for (const auto& [kind, shards] : alike_) consider(*shards.begin(), to, &best);
    for (const size_t s : each_) consider(s, to, &best);
    return best;
  }

  void consider(size_t s, int32_t to, Candidate* best) {
    const auto& [queries, from] = at_home_[s];
    const int64_t most = std::min(most_ - pairs(to), pairs(from.value) - most_);
    if (most <= 0) return;
    for (const Span& rows : ends(queries, most)) {
      if (rows.empty()) continue;
      const PlacedSpan part{queries.document, rows};
      const int64_t pairs = pairs_of(request_, part);
      const double per_byte = static_cast<double>(pairs) / static_cast<double>(bytes(part, to));
      const bool earlier = per_byte == best->pairs_per_byte && s < best->shard;
      if (per_byte > best->pairs_per_byte || earlier) *best = Candidate{s, rows, pairs, per_byte};
    }
  }

  // The largest parts of the queries, from either end, that have no more pairs.
  std::array<Span, 2> ends(const PlacedSpan& queries, int64_t most_pairs) const {
    const auto largest = [&](auto&& rows_of) {
      int64_t low = 0, high = queries.span.size();
      while (low < high) {
        const int64_t size = low + (high - low + 1) / 2;
        pairs_of(request_, {queries.document, rows_of(size)}) <= most_pairs ? low = size : high = size - 1;
      }
      return rows_of(low);
    };
    const Span all = queries.span;
    return {largest([all](int64_t size) {
              return Span{all.end - size, all.end};
            }),
            largest([all](int64_t size) {
              return Span{all.begin, all.begin + size};
            })};
  }

  // Keys of a document at a rank: its home, and what came with queries before.
  const std::vector<Span>& present(DocumentId document, int32_t rank) {
    const auto [at, is_new] = present_.emplace(document, std::vector<Span>());
    if (is_new) {
      const auto own = placement_.spans_of(Rank(rank), document);
      at->second.assign(own.begin(), own.end());
    }
    return at->second;
  }

  int64_t bytes(const PlacedSpan& queries, int32_t to) {
    int64_t num_keys = 0;
    const Span needed = needed_keys(request_.documents[queries.document], queries.span);
    for (const Span& missing : subtract(needed, present(queries.document, to))) num_keys += missing.size();
    return queries.span.size() * row_bytes_ + num_keys * key_bytes_;
  }

  void move(const Candidate& candidate, int32_t to) {
    Shard& shard = at_home_[candidate.shard];
    const DocumentId document = shard.queries.document;
    pairs(shard.rank.value) -= candidate.pairs;
    pairs(to) += candidate.pairs;
    Span& rest = shard.queries.span;
    candidate.rows.end == rest.end ? rest.end = candidate.rows.begin : rest.begin = candidate.rows.end;
    moved_.push_back(Shard{{document, candidate.rows}, Rank(to)});
    std::vector<Span> keys = present(document, to);
    keys.push_back(needed_keys(request_.documents[document], candidate.rows));
    present_[document] = union_of(std::move(keys));
  }

  const Request& request_;
  const Placement& placement_;
  int64_t row_bytes_ = 0;        // a query and its output
  int64_t key_bytes_ = 0;        // a key and its value
  int64_t mean_ = 0, most_ = 0;  // pairs of a rank
  std::vector<int64_t> pairs_;   // [rank]
  std::vector<Shard> at_home_, moved_;
  std::vector<std::vector<size_t>> shards_of_;       // [document], in at_home_
  std::map<Kind, std::set<size_t>> alike_;           // of at_home_, with queries, whose keys are not at the rank
  std::set<size_t> each_;                            // of at_home_: the others
  std::map<DocumentId, std::vector<Span>> present_;  // of the rank that is being filled
};

}  // namespace

Draft write_disaggregated(const Request& request) {
  Draft draft{
      Placement(request.documents, contiguous_spans(whole_documents(request.documents), request.num_ranks())), {}, {}};
  for (const auto& [queries, rank] : Balancer(request, draft.placement).run()) {
    const int32_t own_round = draft.placement.row_of(rank, queries.document, queries.span) >= 0 ? 0 : 1;
    const auto own = draft.placement.spans_of(rank, queries.document);
    const Span needed = needed_keys(request.documents[queries.document], queries.span);
    for (const Span& keys : own) attend(request, rank, own_round, queries, keys, all_heads(request), &draft.tasks);
    for (const Span& keys : subtract(needed, own)) {
      attend(request, rank, 1, queries, keys, all_heads(request), &draft.tasks);
    }
  }
  return draft;
}

Traffic disaggregated_traffic(const Request& request, const Placement& placement) {
  const AttentionShape& shape = request.shape;
  int64_t num_rows = 0, num_keys = 0;  // that travel
  std::map<std::pair<Rank, DocumentId>, std::vector<Span>> needed;
  for (const auto& [queries, rank] : Balancer(request, placement).run()) {
    if (placement.row_of(rank, queries.document, queries.span) < 0) num_rows += queries.span.size();
    needed[{rank, queries.document}].push_back(needed_keys(request.documents[queries.document], queries.span));
  }
  for (auto& [at, keys] : needed) {
    const auto own = placement.spans_of(at.first, at.second);
    for (const Span& whole : union_of(std::move(keys))) {
      for (const Span& remote : subtract(whole, own)) num_keys += remote.size();
    }
  }
  const int64_t elements = 2 * num_rows * shape.num_heads + 2 * num_keys * shape.num_kv_heads;
  return Traffic{elements * shape.head_dim * num_bytes(shape.element), 2};
}

}  // namespace evenspan::plan
