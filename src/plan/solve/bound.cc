#include "evenspan/plan/bound.h"

#include <algorithm>
#include <vector>

namespace evenspan::plan {
namespace {

// The least work that any `n` tokens of the batch have. Only causal documents are looked into: any other token counts
// as if it had one pair.
class LightestTokens {
 public:
  explicit LightestTokens(const Request& request) : request_(request) {
    for (const Document& document : request.documents.all()) {
      if (document.mask.kind == MaskKind::causal) {
        lengths_.push_back(document.length);
      } else {
        others_ += document.length;
      }
    }
    std::sort(lengths_.begin(), lengths_.end());
    for (const int64_t length : lengths_) {
      tokens_before_.push_back(tokens_before_.back() + length);
      pairs_before_.push_back(pairs_before_.back() + triangle(length));
    }
  }

  double work(int64_t n) const {
    if (n <= 0) return 0;
    const int64_t in_causal = n - std::min(n, others_);
    int64_t low = 0, high = lengths_.empty() ? 0 : lengths_.back();
    while (low < high) {  // the fewest first positions of every document that make up so many tokens
      const int64_t middle = low + (high - low) / 2;
      count(middle).tokens < in_causal ? low = middle + 1 : high = middle;
    }
    const Count all = count(low);
    const int64_t pairs = all.pairs - (all.tokens - in_causal) * low + (n - in_causal);
    return request_.cost.work(std::max<int64_t>(pairs, n), n);
  }

 private:
  static int64_t triangle(int64_t n) { return n * (n + 1) / 2; }

  struct Count {
    int64_t tokens = 0, pairs = 0;
  };
  Count count(int64_t positions) const {
    const auto shorter =
        static_cast<size_t>(std::upper_bound(lengths_.begin(), lengths_.end(), positions) - lengths_.begin());
    const auto longer = static_cast<int64_t>(lengths_.size() - shorter);
    return {tokens_before_[shorter] + longer * positions, pairs_before_[shorter] + longer * triangle(positions)};
  }

  const Request& request_;
  int64_t others_ = 0;  // tokens of documents that are not causal
  std::vector<int64_t> lengths_;
  std::vector<int64_t> tokens_before_{0}, pairs_before_{0};
};

}  // namespace

std::string_view to_string(Binding binding) {
  switch (binding) {
    case Binding::nothing:
      return "nothing";
    case Binding::work:
      return "work";
    case Binding::tokens:
      return "tokens";
  }
  return "nothing";
}

Bound lower_bound(const Request& request, const BalanceLimits& limits) {
  const LightestTokens lightest(request);
  const int64_t num_ranks = request.num_ranks();
  const int64_t total_tokens = request.documents.total_tokens();
  Bound bound;
  bound.limits = limits;
  for (const Document& document : request.documents.all()) {
    bound.work_seconds += request.cost.work(num_pairs(document, Span{0, document.length}), document.length);
  }
  bound.work_seconds /= static_cast<double>(num_ranks);
  const double most_work = bound.work_seconds * limits.work_max_over_mean;
  const double most_tokens =
      static_cast<double>(total_tokens) / static_cast<double>(num_ranks) * limits.tokens_max_over_mean;
  int64_t of_work = 0;
  for (const Document& document : request.documents.all()) {
    const bool full = document.mask.kind == MaskKind::full;
    if (!full && document.mask.kind != MaskKind::causal) continue;
    // Whether `ranks` ranks may hold all positions from `begin` on.
    const auto holds = [&](int64_t ranks, int64_t begin, bool with_tokens) {
      const int64_t size = document.length - begin;
      const double work = request.cost.work(num_pairs(document, Span{begin, document.length}), size);
      const auto count = static_cast<double>(ranks);
      if (!with_tokens) return work <= count * most_work;
      if (static_cast<double>(size) > count * most_tokens) return false;
      const double others = static_cast<double>(num_ranks - ranks) * most_tokens;
      const auto share = static_cast<int64_t>(std::max(0.0, static_cast<double>(total_tokens - size) - others));
      return work + lightest.work(share) <= count * most_work;
    };
    const auto least = [&](int64_t ranks, bool with_tokens) {
      if (holds(ranks, 0, with_tokens)) return int64_t{0};
      if (full) return document.length;
      int64_t low = 0, high = document.length;
      while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        holds(ranks, middle, with_tokens) ? high = middle : low = middle + 1;
      }
      return low;
    };
    for (int64_t ranks = 1; ranks < num_ranks; ++ranks) {
      const int64_t tokens = least(ranks, true);
      if (tokens == 0) break;
      bound.key_tokens += tokens;
      of_work += least(ranks, false);
    }
  }
  if (bound.key_tokens > 0) bound.binding = 2 * of_work >= bound.key_tokens ? Binding::work : Binding::tokens;
  const AttentionShape& shape = request.shape;
  bound.key_value_bytes = bound.key_tokens * 2 * shape.num_kv_heads * shape.head_dim * num_bytes(shape.element);
  return bound;
}

}  // namespace evenspan::plan
