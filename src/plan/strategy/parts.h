// Pieces that several strategies are made of.
#pragma once

#include <functional>
#include <vector>

#include "plan/solve/head_split.h"
#include "plan/strategy/strategy.h"

namespace evenspan::plan {

inline HeadRange all_heads(const Request& request) { return HeadRange{0, request.shape.num_heads}; }
inline HeadRange all_kv_heads(const Request& request) { return HeadRange{0, request.shape.num_kv_heads}; }

// Bytes of a row of all heads: of queries, of keys and values, and of an output that is not final with its log-sum-exp.
struct RowBytes {
  explicit RowBytes(const AttentionShape& shape);
  int64_t query, key_value, partial;
};

// The batch as one stream, cut into num_parts equal pieces.
std::vector<std::vector<PlacedSpan>> contiguous_spans(const std::vector<PlacedSpan>& stream, int32_t num_parts);
std::vector<PlacedSpan> whole_documents(const Documents& documents);
Placement stream_placement(const Request& request);  // a piece for each rank

// Adds the tiles of queries x keys to a draft's tasks.
void attend(const Request& request, Rank rank, int32_t round, const PlacedSpan& queries, Span keys, HeadRange heads,
            std::vector<Task>* tasks);

// Tasks for a placement whose queries stay at home: round 0 with the rank's own keys, the others that the mask lets it
// see in as many more rounds as cost least (num_remote_rounds). Nothing moves but keys and values.
std::vector<Task> tasks_with_queries_at_home(const Request& request, const Placement& placement);
// The same, of the documents that `counts` only.
std::vector<Task> tasks_with_queries_at_home(const Request& request, const Placement& placement,
                                             const std::function<bool(DocumentId)>& counts);

// A chunk of every document on each rank.
Placement ring_placement(const Request& request);
// Two chunks of every document on each rank, one from either end, so that causal work is even.
Placement zigzag_placement(const Request& request);

// Keys and values of every rank's home go around the ring of ranks, one hop a round: at round s a rank attends to what
// was home s ranks before it.
Draft ring_draft(const Request& request, Placement placement);
Traffic ring_traffic(const Request& request, const Placement& placement);

// Splits each rank ("group") of `outer`, a draft for num_ranks / ranks_per_group ranks, into `ranks_per_group` ranks
// that share its tokens and split its heads (and its query rows, when there are more of them than heads).
Draft split_heads(const Request& request, const Draft& outer, int32_t ranks_per_group);

// The request that the outer strategy of a hierarchy sees: one rank for each group.
Request group_request(const Request& request, int32_t ranks_per_group);

// Options::ranks_per_group, or its default.
int32_t ranks_per_group(const Request& request);

// What ranks move when each computes its part of the heads and rows of its group's `group_spans` ([group], sorted) and
// fetches every operand once.
Traffic split_heads_traffic(const Request& request, const Placement& placement, int32_t ranks_per_group,
                            const std::vector<std::vector<PlacedSpan>>& group_spans);
// The same for all tokens of the groups.
Traffic split_heads_traffic(const Request& request, const Placement& placement, int32_t ranks_per_group);

// Keys that the placement's ranks need from elsewhere for the queries of their own homes, of the documents that
// `counts` on a rank: the sum over ranks, in tokens.
int64_t remote_key_tokens(const Request& request, const Placement& placement,
                          const std::function<bool(Rank, DocumentId)>& counts);
int64_t remote_key_tokens(const Request& request, const Placement& placement);

}  // namespace evenspan::plan
