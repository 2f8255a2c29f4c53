// A plan per document: inside every group of ranks the short documents lie whole on one rank each and move nothing, the
// long ones are shared by all ranks of the group, which split their heads; the longest are cut over groups. Whole
// documents run first and last, so that they hide what the shared ones move.
#include <algorithm>

#include "plan/solve/cut_documents.h"
#include "plan/solve/mixed_placement.h"
#include "plan/solve/rounds.h"
#include "plan/strategy/parts.h"
#include "plan/strategy/table.h"

namespace evenspan::plan {
namespace {

// Of sorted spans.
bool holds(const std::vector<PlacedSpan>& spans, DocumentId document) {
  const auto at = std::lower_bound(spans.begin(), spans.end(), PlacedSpan{document, Span{}});
  return at != spans.end() && at->document == document;
}

class Writer {
 public:
  Writer(const Request& request, MixedPlacement solved)
      : request_(request),
        group_size_(ranks_per_group(request)),
        split_(head_split(request, group_size_)),
        shared_(std::move(solved.shared)),
        placement_(request.documents, std::move(solved.homes)),
        remote_keys_(request, shared_) {}

  Draft write() {
    int32_t most_rounds = 0;
    for (size_t g = 0; g < shared_.size(); ++g) most_rounds = std::max(most_rounds, remote_keys_.num_rounds(g));
    for (size_t g = 0; g < shared_.size(); ++g) {
      for (int32_t member = 0; member < group_size_; ++member) {
        const Rank rank(static_cast<int64_t>(g) * group_size_ + member);
        add_whole(g, rank, 2 + most_rounds);
        for (size_t i = 0; i < shared_[g].size();) i = add_shared(g, rank, member, i);
      }
    }
    return Draft{std::move(placement_), std::move(tasks_), {}, /*may_relay=*/true};
  }

 private:
  // Half of a rank's whole documents in round 0, the other half in the last one. Of a document that is divided by rows
  // the keys of the group's other ranks come in round 1.
  void add_whole(size_t group, Rank rank, int32_t last_round) {
    double pairs = 0, before = 0;
    std::vector<PlacedSpan> whole;
    for (const PlacedSpan& placed : placement_.spans(rank)) {
      if (holds(shared_[group], placed.document)) continue;
      whole.push_back(placed);
      pairs += static_cast<double>(num_pairs(request_.documents[placed.document], placed.span));
    }
    for (const PlacedSpan& placed : whole) {
      const bool late = !shared_[group].empty() && before >= pairs / 2;
      before += static_cast<double>(num_pairs(request_.documents[placed.document], placed.span));
      const Document& document = request_.documents[placed.document];
      const auto own = placement_.spans_of(rank, placed.document);
      const std::vector<Span> remote = subtract(needed_keys(document, placed.span), own);
      const int32_t round = late && remote.empty() ? last_round : 0;
      for (const Span& keys : own) attend(request_, rank, round, placed, keys, all_heads(request_), &tasks_);
      for (const Span& keys : remote) attend(request_, rank, 1, placed, keys, all_heads(request_), &tasks_);
    }
  }

  // Adds the tiles of the document whose spans begin at `first`, and returns where those of the next one begin. Round 1
  // has the keys of the group, those after it have what comes from the document's other groups.
  size_t add_shared(size_t group, Rank rank, int32_t member, size_t first) {
    const size_t last = document_end(shared_[group], first);
    const HeadRange heads = split_.heads(member);
    const DocumentId document = shared_[group][first].document;
    const std::vector<std::vector<Span>> rounds = remote_keys_.rounds(group, document);
    for (size_t q = first; q < last; ++q) {
      for (const Span& rows : split_.rows(member, shared_[group][q].span)) {
        const PlacedSpan queries{document, rows};
        for (size_t k = first; k < last; ++k) {
          attend(request_, rank, 1, queries, shared_[group][k].span, heads, &tasks_);
        }
        for (size_t round = 0; round < rounds.size(); ++round) {
          for (const Span& keys : rounds[round]) {
            attend(request_, rank, 2 + static_cast<int32_t>(round), queries, keys, heads, &tasks_);
          }
        }
      }
    }
    return last;
  }

  const Request& request_;
  const int32_t group_size_;
  const HeadSplit split_;
  const std::vector<std::vector<PlacedSpan>> shared_;  // [group]
  Placement placement_;
  const RemoteKeys remote_keys_;
  std::vector<Task> tasks_;
};

}  // namespace

Draft write_mixed(const Request& request) {
  return Writer(request, place_mixed(request, ranks_per_group(request))).write();
}

Traffic mixed_traffic(const Request& request, const Placement& placement) {
  const int32_t group_size = ranks_per_group(request);
  const auto shared = place_mixed(request, group_size).shared;
  const auto divided_keys = remote_key_tokens(request, placement, [&](Rank rank, DocumentId document) {
    return !holds(shared[static_cast<size_t>(rank / group_size)], document);
  });
  const int64_t token_bytes = RowBytes(request.shape).key_value;
  return Traffic{split_heads_traffic(request, placement, group_size, shared).sent_bytes + divided_keys * token_bytes,
                 2 + 2 * most_remote_rounds(request)};
}

}  // namespace evenspan::plan
