// A plan per document: inside every group of ranks the short documents lie whole on one rank each and move nothing, the
// long ones are shared by all ranks of the group, which split their heads; the longest are cut over groups. Whole
// documents run first and last, so that they hide what the shared ones move.
#include <map>

#include "plan/solve/mixed_placement.h"
#include "plan/solve/stages.h"
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
        placement_(request.documents, std::move(solved.homes)) {
    for (size_t g = 0; g < shared_.size(); ++g) {
      for (size_t i = 0; i < shared_[g].size(); i = document_end(g, i)) groups_of_[shared_[g][i].document].push_back(g);
    }
  }

  Draft write() {
    int32_t most_stages = 0;
    for (size_t g = 0; g < shared_.size(); ++g) {
      num_remote_stages_.push_back(remote_stages(g));
      most_stages = std::max(most_stages, num_remote_stages_.back());
    }
    for (size_t g = 0; g < shared_.size(); ++g) {
      for (int32_t member = 0; member < group_size_; ++member) {
        const Rank rank(static_cast<int64_t>(g) * group_size_ + member);
        add_whole(g, rank, 2 + most_stages);
        for (size_t i = 0; i < shared_[g].size();) i = add_shared(g, rank, member, i);
      }
    }
    return Draft{std::move(placement_), std::move(tasks_), {}};
  }

 private:
  // Half of a rank's whole documents in stage 0, the other half in the last one. Of a document that is divided by rows
  // the keys of the group's other ranks come in stage 1.
  void add_whole(size_t group, Rank rank, int32_t last_stage) {
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
      const std::vector<Span> own = placement_.spans_of(rank, placed.document);
      const std::vector<Span> remote = subtract(needed_keys(document, placed.span), own);
      const int32_t stage = late && remote.empty() ? last_stage : 0;
      for (const Span& keys : own) attend(request_, rank, stage, placed, keys, all_heads(request_), &tasks_);
      for (const Span& keys : remote) attend(request_, rank, 1, placed, keys, all_heads(request_), &tasks_);
    }
  }

  // The keys that the spans of one document, from `first` to `last` of a group's shared ones, need from other groups.
  std::vector<Span> remote_keys(size_t group, size_t first, size_t last) const {
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

  size_t document_end(size_t group, size_t first) const {
    size_t last = first;
    while (last < shared_[group].size() && shared_[group][last].document == shared_[group][first].document) ++last;
    return last;
  }

  int32_t remote_stages(size_t group) const {
    RemoteWork work;
    for (size_t i = 0; i < shared_[group].size();) {
      const size_t last = document_end(group, i);
      const std::vector<Span> remote = remote_keys(group, i, last);
      for (const Span& keys : remote) work.keys += keys.size();
      for (; i < last; ++i) {
        if (remote.empty()) continue;
        const PlacedSpan& placed = shared_[group][i];
        work.pairs += static_cast<double>(num_pairs(request_.documents[placed.document], placed.span)) / group_size_;
      }
    }
    work.kv_heads = request_.shape.kv_heads(split_.heads(0)).size();
    return num_remote_stages(request_, work);
  }

  // What is at home in the document's other groups, by the stage in which it comes.
  std::vector<std::vector<Span>> remote_stages_of(size_t group, DocumentId document) const {
    const std::vector<size_t>& groups = groups_of_.at(document);
    const auto own = static_cast<size_t>(std::find(groups.begin(), groups.end(), group) - groups.begin());
    const auto num_others = static_cast<int64_t>(groups.size() - 1);
    const int64_t num_stages = std::min<int64_t>(num_remote_stages_[group], num_others);
    std::vector<std::vector<Span>> stages;
    for (int64_t stage = 0; stage < num_stages; ++stage) {
      const Span others = equal_part(num_others, stage, num_stages);
      std::vector<Span> keys;
      for (int64_t hop = others.begin + 1; hop <= others.end; ++hop) {
        const size_t other = groups[(own + static_cast<size_t>(hop)) % groups.size()];
        const auto& spans = shared_[other];
        auto at = std::lower_bound(spans.begin(), spans.end(), PlacedSpan{document, Span{}});
        for (; at != spans.end() && at->document == document; ++at) keys.push_back(at->span);
      }
      stages.push_back(union_of(std::move(keys)));
    }
    return stages;
  }

  // Adds the tiles of the document whose spans begin at `first`, and returns where those of the next one begin. Stage 1
  // has the keys of the group; those of the document's other groups come in the order of a ring, the next group's
  // first, so that in no stage many ask the same one.
  size_t add_shared(size_t group, Rank rank, int32_t member, size_t first) {
    const size_t last = document_end(group, first);
    const HeadRange heads = split_.heads(member);
    const DocumentId document = shared_[group][first].document;
    const std::vector<std::vector<Span>> stages = remote_stages_of(group, document);
    for (size_t q = first; q < last; ++q) {
      for (const Span& rows : split_.rows(member, shared_[group][q].span)) {
        const PlacedSpan queries{document, rows};
        for (size_t k = first; k < last; ++k) {
          attend(request_, rank, 1, queries, shared_[group][k].span, heads, &tasks_);
        }
        for (size_t stage = 0; stage < stages.size(); ++stage) {
          for (const Span& keys : stages[stage]) {
            attend(request_, rank, 2 + static_cast<int32_t>(stage), queries, keys, heads, &tasks_);
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
  std::map<DocumentId, std::vector<size_t>> groups_of_;  // ascending
  std::vector<int32_t> num_remote_stages_;               // [group]
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
  const AttentionShape& shape = request.shape;
  const int64_t token_bytes = int64_t{2} * shape.num_kv_heads * shape.head_dim * num_bytes(shape.element);
  return Traffic{split_heads_traffic(request, placement, group_size, shared).sent_bytes + divided_keys * token_bytes,
                 2 + 2 * most_remote_stages(request)};
}

}  // namespace evenspan::plan
