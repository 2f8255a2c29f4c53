// Batches of packed documents in a seeded order, the same on every rank, and one rank's part of a batch.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "evenspan/core/ranges.h"
#include "evenspan/plan/placement.h"
#include "evenspan/train/config.h"
#include "evenspan/train/corpus.h"
#include "evenspan/train/cursor.h"

namespace evenspan::train {

// A piece of a corpus document that is a training document of its own: documents longer than max_document_tokens
// continue as new documents.
struct Excerpt {
  int64_t document = 0;
  Span span;  // never empty
  int64_t length() const { return span.size(); }
  friend bool operator==(const Excerpt&, const Excerpt&) = default;
};
using Batch = std::vector<Excerpt>;  // never empty

std::vector<int64_t> lengths(const Batch& batch);
int64_t num_tokens(const Batch& batch);
// Tokens with a successor in their document: all but the last of each.
int64_t num_labels(const Batch& batch);

// Cuts a corpus into pieces, holds out a part, and deals the rest in batches. Each epoch is a permutation of the pieces
// that depends on the seed and the epoch only. A batch takes pieces as long as they fit into batch_tokens; the first
// that does not fit opens the next batch, so no document is ever cut at a batch's border. Batches run across the ends
// of epochs.
class Batches {
 public:
  // Throws invalid_argument when max_document_tokens is above batch_tokens or nothing is left to train on.
  Batches(std::shared_ptr<const Corpus> corpus, const DataConfig& config);

  // Throws invalid_argument for a cursor that does not stand in these batches; `source` says where it is from.
  void check(const Cursor& cursor, const std::string& source) const;
  // The batch at the cursor, which moves on. REQUIRES: check() takes it.
  Batch next(Cursor* cursor) const;
  // The held-out part in batches, in order; at most `max_batches` of them.
  std::vector<Batch> held_out(int64_t max_batches) const;

  int64_t num_pieces() const { return static_cast<int64_t>(pieces_.size()); }  // of an epoch
  int64_t num_tokens() const { return num_tokens_; }                           // of an epoch
  int64_t num_held_out() const { return static_cast<int64_t>(held_out_.size()); }
  // Names what the batches depend on; equal for equal data and options.
  uint64_t fingerprint() const { return fingerprint_; }
  const Corpus& corpus() const { return *corpus_; }

 private:
  std::vector<int64_t> order(int64_t epoch) const;
  void arrange(Batch* batch, const Cursor& start) const;

  std::shared_ptr<const Corpus> corpus_;
  DataConfig config_;
  std::vector<Excerpt> pieces_;
  std::vector<Excerpt> held_out_;
  int64_t num_tokens_ = 0;
  uint64_t fingerprint_ = 0;
  mutable int64_t cached_epoch_ = -1;  // one thread at a time uses a Batches
  mutable std::vector<int64_t> cached_order_;
};

// One rank's rows of a batch, in placement order; int64 [n], n may be 0.
struct LocalTokens {
  at::Tensor ids;
  at::Tensor positions;  // inside the document, from 0
  at::Tensor labels;     // the document's next token, nn::kNoLabel for its last
};
// Throws invalid_argument for a token outside [0, vocab_size), naming its document.
LocalTokens load_tokens(const Corpus& corpus, const Batch& batch, const std::vector<plan::PlacedSpan>& spans,
                        int64_t vocab_size);

}  // namespace evenspan::train
