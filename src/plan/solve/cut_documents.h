// Documents that are cut into parts: which rows a part has, and in which rounds the keys of the other parts come.
#pragma once

#include <map>
#include <vector>

#include "evenspan/plan/placement.h"
#include "evenspan/plan/request.h"

namespace evenspan::plan {

// Cuts a document into parts that add up to 1: of each a chunk from its beginning and the mirrored one from its end,
// the first parts outermost; the last part is what is left in the middle. Parts without a token have no span. Long
// documents are cut between tiles of so many rows, so that kernels work on no part of one.
std::vector<std::vector<PlacedSpan>> mirrored_chunks(DocumentId id, int64_t length, const std::vector<double>& parts,
                                                     int64_t tile);

// The first span of another document than that of `spans[first]`, in sorted spans.
size_t document_end(const std::vector<PlacedSpan>& spans, size_t first);

// Seconds of all heads' attention of some rows of a document, the pairs that its mask allows in each key range by
// themselves. Key ranges are the rows themselves or do not overlap with them.
double chunk_attention_seconds(const Request& request, const PlacedSpan& queries, const std::vector<Span>& key_ranges);

// What groups of ranks get from each other of the documents that they share.
class RemoteKeys {
 public:
  // `shared`: [group] spans whose heads the group's ranks split, sorted. It outlives this.
  RemoteKeys(const Request& request, const std::vector<std::vector<PlacedSpan>>& shared);

  // In which the group gets its remote keys at most.
  int32_t num_rounds(size_t group) const { return num_rounds_[group]; }
  // What is at home in the document's other groups, by the round in which it comes to this one: in the order of a ring,
  // the next group's first, so that in no round many ask the same one.
  std::vector<std::vector<Span>> rounds(size_t group, DocumentId document) const;
  // Attention seconds of the group's spans of documents that other groups have spans of too, by the tiles of the plan.
  double attention_seconds(size_t group) const;

 private:
  std::vector<Span> needed_elsewhere(size_t group, size_t first, size_t last) const;
  int32_t rounds_for(size_t group) const;
  double attention_seconds(size_t group, size_t first, size_t last) const;

  const Request& request_;
  const std::vector<std::vector<PlacedSpan>>& shared_;
  std::map<DocumentId, std::vector<size_t>> groups_of_;  // ascending
  std::vector<int32_t> num_rounds_;                      // [group]
};

}  // namespace evenspan::plan
