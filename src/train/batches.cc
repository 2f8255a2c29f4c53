#include "evenspan/train/batches.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <numeric>

#include "evenspan/core/error.h"
#include "evenspan/nn/loss.h"

namespace evenspan::train {
namespace {

uint64_t mix(uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

uint64_t combine(uint64_t a, uint64_t b) { return mix(a ^ mix(b)); }

// Fisher and Yates, from counted random numbers: the same on every machine.
template <class T>
void shuffle(std::vector<T>* items, uint64_t key) {
  for (size_t i = items->size(); i > 1; --i) {
    std::swap((*items)[i - 1], (*items)[mix(key ^ mix(i)) % i]);
  }
}

void append_pieces(const Corpus& corpus, int64_t document, int64_t max_tokens, std::vector<Excerpt>* pieces) {
  const int64_t length = corpus.length(document);
  for (int64_t begin = 0; begin < length; begin += max_tokens) {
    pieces->push_back({document, Span{begin, std::min(length, begin + max_tokens)}});
  }
}

}  // namespace

std::vector<int64_t> lengths(const Batch& batch) {
  std::vector<int64_t> out;
  for (const Excerpt& piece : batch) out.push_back(piece.length());
  return out;
}

int64_t num_tokens(const Batch& batch) {
  int64_t n = 0;
  for (const Excerpt& piece : batch) n += piece.length();
  return n;
}

int64_t num_labels(const Batch& batch) { return num_tokens(batch) - static_cast<int64_t>(batch.size()); }

Batches::Batches(std::shared_ptr<const Corpus> corpus, const DataConfig& config)
    : corpus_(std::move(corpus)), config_(config) {
  if (config_.max_document_tokens > config_.batch_tokens) {
    fail_invalid("[data] max_document_tokens must be at most batch_tokens, they are ", config_.max_document_tokens,
                 " and ", config_.batch_tokens);
  }
  const int64_t n = corpus_->num_documents();
  std::vector<int64_t> shuffled(static_cast<size_t>(n));
  std::iota(shuffled.begin(), shuffled.end(), 0);
  shuffle(&shuffled, combine(static_cast<uint64_t>(config_.seed), 1));
  // Whole documents are held out, so that no part of them is trained on.
  auto num_held = static_cast<int64_t>(config_.held_out_fraction * static_cast<double>(n));
  if (config_.held_out_fraction > 0) num_held = std::max<int64_t>(num_held, 1);
  if (num_held >= n) {
    fail_invalid("[data] holding out ", num_held, " of ", n,
                 " documents leaves none to train on; lower data.held_out_fraction");
  }
  std::sort(shuffled.begin(), shuffled.begin() + num_held);
  std::sort(shuffled.begin() + num_held, shuffled.end());
  for (int64_t i = 0; i < n; ++i) {
    append_pieces(*corpus_, shuffled[static_cast<size_t>(i)], config_.max_document_tokens,
                  i < num_held ? &held_out_ : &pieces_);
  }
  fingerprint_ = combine(static_cast<uint64_t>(config_.seed), static_cast<uint64_t>(config_.batch_tokens));
  for (const Excerpt& piece : pieces_) {
    num_tokens_ += piece.length();
    fingerprint_ = combine(fingerprint_, static_cast<uint64_t>(piece.document));
    fingerprint_ = combine(fingerprint_, static_cast<uint64_t>(piece.length()));
  }
}

std::vector<int64_t> Batches::order(int64_t epoch) const {
  std::vector<int64_t> out(pieces_.size());
  std::iota(out.begin(), out.end(), 0);
  shuffle(&out, combine(combine(static_cast<uint64_t>(config_.seed), 2), static_cast<uint64_t>(epoch)));
  return out;
}

void Batches::arrange(Batch* batch, const Cursor& start) const {
  if (config_.pack_order == 0) return;
  uint64_t key = combine(static_cast<uint64_t>(config_.pack_order), 3);
  key = combine(combine(key, static_cast<uint64_t>(start.epoch)), static_cast<uint64_t>(start.next));
  shuffle(batch, key);
}

void Batches::check(const Cursor& cursor, const std::string& source) const {
  if (cursor.epoch < 0 || cursor.next < 0 || cursor.next >= num_pieces()) {
    fail_invalid("[data] ", source, " stands at epoch ", cursor.epoch, ", next ", cursor.next,
                 "; neither is negative, and next is below the ", num_pieces(), " documents of an epoch");
  }
}

Batch Batches::next(Cursor* cursor) const {
  const Cursor start = *cursor;
  Batch batch;
  for (int64_t tokens = 0;;) {
    if (cached_epoch_ != cursor->epoch) {
      cached_order_ = order(cursor->epoch);
      cached_epoch_ = cursor->epoch;
    }
    const Excerpt& piece = pieces_[static_cast<size_t>(cached_order_[static_cast<size_t>(cursor->next)])];
    tokens += piece.length();
    if (tokens > config_.batch_tokens) break;
    batch.push_back(piece);
    if (++cursor->next == num_pieces()) *cursor = Cursor{cursor->epoch + 1, 0};
  }
  arrange(&batch, start);
  return batch;
}

std::vector<Batch> Batches::held_out(int64_t max_batches) const {
  std::vector<Batch> batches;
  int64_t tokens = 0;
  for (const Excerpt& piece : held_out_) {
    if (batches.empty() || tokens + piece.length() > config_.batch_tokens) {
      if (static_cast<int64_t>(batches.size()) == max_batches) break;
      batches.emplace_back();
      tokens = 0;
    }
    batches.back().push_back(piece);
    tokens += piece.length();
  }
  return batches;
}

LocalTokens load_tokens(const Corpus& corpus, const Batch& batch, const std::vector<plan::PlacedSpan>& spans,
                        int64_t vocab_size) {
  int64_t n = 0;
  for (const plan::PlacedSpan& placed : spans) n += placed.span.size();
  LocalTokens out{at::empty({n}, at::kLong), at::empty({n}, at::kLong), at::empty({n}, at::kLong)};
  auto* ids = out.ids.mutable_data_ptr<int64_t>();
  auto* positions = out.positions.mutable_data_ptr<int64_t>();
  auto* labels = out.labels.mutable_data_ptr<int64_t>();
  std::vector<int64_t> tokens;
  for (const plan::PlacedSpan& placed : spans) {
    const Excerpt& piece = batch[static_cast<size_t>(placed.document.value)];
    const Span span = placed.span;
    // One more token than the span has rows, where the document goes on: the last row's label.
    const int64_t end = std::min(span.end + 1, piece.length());
    tokens.resize(static_cast<size_t>(end - span.begin));
    corpus.read(piece.document, Span{piece.span.begin + span.begin, piece.span.begin + end}, tokens.data());
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (tokens[i] < 0 || tokens[i] >= vocab_size) {
        fail_invalid("[data] tokens must be in [0, ", vocab_size, "), the model's vocab_size; token ",
                     piece.span.begin + span.begin + static_cast<int64_t>(i), " of ", corpus.name(piece.document),
                     " is ", tokens[i]);
      }
    }
    for (int64_t i = 0; i < span.size(); ++i) {
      const auto at = static_cast<size_t>(i);
      *ids++ = tokens[at];
      *positions++ = span.begin + i;
      *labels++ = at + 1 < tokens.size() ? tokens[at + 1] : nn::kNoLabel;
    }
  }
  return out;
}

}  // namespace evenspan::train
