// Length buckets, which make FlexSP's program small (arXiv 2412.01523, section 4).
#pragma once

#include <span>
#include <vector>

#include "evenspan/batch/step.h"

namespace evenspan::batch {

// Documents that count as long as the longest of them.
struct Bucket {
  int64_t length = 0;                    // of the longest
  std::vector<DocumentIndex> documents;  // the shortest first
};

// `documents`, the longest first, in `num_buckets` buckets of neighbours, the shortest first, with the least sum of
// tokens by which documents count longer than they are. REQUIRES: 1 <= num_buckets <= the number of documents.
std::vector<Bucket> make_buckets(std::span<const DocumentIndex> documents, std::span<const int64_t> lengths,
                                 int64_t num_buckets);

// As the published code: 16 buckets, more while documents as long as their buckets have more tokens than the mean of
// what they have and what all ranks hold, and a bucket for each document where so many buckets are no fewer.
std::vector<Bucket> make_buckets_for(std::span<const DocumentIndex> documents, std::span<const int64_t> lengths,
                                     const Cost& cost);

// Documents, the longest first, in `num_batches` runs of neighbours with the least tokens of the largest: their ends.
// REQUIRES: 1 <= num_batches <= the number of documents.
std::vector<size_t> cut_evenly(std::span<const DocumentIndex> documents, std::span<const int64_t> lengths,
                               int64_t num_batches);

}  // namespace evenspan::batch
