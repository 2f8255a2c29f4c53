// What ranks compute under a strategy that treats all documents alike: where tokens lie, and the attention of a round.
#pragma once

#include <algorithm>
#include <vector>

#include "evenspan/simulate/profile.h"
#include "plan/strategy/strategy.h"

namespace evenspan::simulate {

// Throws invalid_argument for a strategy without a formula.
plan::Uniform uniform_of(const plan::Request& request);

// How a strategy's formula becomes a bound.
struct Evenness {
  int64_t quantum = 1;     // tokens of a document of which every rank has equally many, in whole chunks
  int64_t num_rounds = 0;  // of a zigzag: the keys of the rank with the middle chunks come as one chunk; 0: all as said
};

Evenness evenness(const plan::Request& request, const plan::Uniform& uniform);

class UniformWork {
 public:
  // REQUIRES: both outlive it.
  UniformWork(const plan::Request& request, const AttentionTimes& times)
      : request_(request), uniform_(uniform_of(request)), times_(times), num_ranks_(request.num_ranks()) {}

  const plan::Uniform& uniform() const { return uniform_; }
  bool splits_heads() const {
    return uniform_.circulation == plan::Circulation::heads || uniform_.circulation == plan::Circulation::keys_by_heads;
  }

  // [rank] Tokens at home.
  std::vector<double> tokens() const;
  // [rank] Pairs of a query and a key that it computes.
  std::vector<double> pairs() const;

  static int64_t part(int64_t total, int64_t parts) { return (total + parts - 1) / parts; }

  double segment(Pass pass, plan::TileKind kind, int64_t rows, int64_t keys, int32_t heads) const {
    return rows < 1 || keys < 1 ? 0 : segment_seconds(times_, pass, kind, rows, keys, heads);
  }

  // Sums over documents: f(length, whether it is causal).
  template <class F>
  double over_documents(F&& f) const {
    double sum = 0;
    for (const plan::Document& document : request_.documents.all()) {
      sum += f(document.length, document.mask.kind == plan::MaskKind::causal);
    }
    return sum;
  }

  // Where all tokens are gathered: the placement, empty where all documents lie alike, and a rank's spans of it.
  plan::Placement gathered_stream() const;
  std::vector<plan::PlacedSpan> gathered_spans(const plan::Placement& stream, Rank rank) const;
  // plan::remote_key_tokens() of zigzag's placement. A rank's high chunk sees all keys that its low chunk sees.
  int64_t zigzag_remote_key_tokens() const;

  // The slowest rank's attention in a round of a ring of `num_members`, `heads` heads a rank.
  double round(Pass pass, int32_t number, int32_t num_members, int32_t heads) const;
  // The rounds' attention. But of stripes all after the first are alike.
  std::vector<double> round_seconds(Pass pass, int32_t num_members, int32_t heads) const;

 private:
  // Calls f(span) for the home spans of a document on a rank, in ascending order.
  template <class F>
  void for_each_home(int64_t length, int64_t rank, F&& f) const {
    if (uniform_.layout == plan::Layout::chunks) return f(equal_part(length, rank, num_ranks_));
    if (uniform_.layout == plan::Layout::zigzag) {
      const int64_t chunks = int64_t{2} * num_ranks_;
      const Span low = equal_part(length, rank, chunks), high = equal_part(length, chunks - 1 - rank, chunks);
      if (low.end == high.begin) return f(Span{low.begin, high.end});
      f(low);
      return f(high);
    }
    const int64_t stripe = request_.options.stripe_tokens;
    for (int64_t begin = rank * stripe; begin < length; begin += stripe * num_ranks_) {
      f(Span{begin, std::min(begin + stripe, length)});
    }
  }

  // Calls f(rank, document, span) for every home span where queries stay at home.
  template <class F>
  void for_each_home_span(F&& f) const {
    const auto size = static_cast<size_t>(num_ranks_);
    if (uniform_.circulation == plan::Circulation::gather) {
      const plan::Placement stream = gathered_stream();
      for (size_t r = 0; r < size; ++r) {
        for (const auto& [document, span] : gathered_spans(stream, Rank(static_cast<int64_t>(r)))) {
          f(r, request_.documents[document], span);
        }
      }
      return;
    }
    for (const plan::Document& document : request_.documents.all()) {
      for (size_t r = 0; r < size; ++r) {
        for_each_home(document.length, static_cast<int64_t>(r), [&](const Span& span) { f(r, document, span); });
      }
    }
  }

  std::vector<double> pairs_of_halves() const;

  const plan::Request& request_;
  const plan::Uniform uniform_;
  const AttentionTimes& times_;
  const int32_t num_ranks_;
};

}  // namespace evenspan::simulate
