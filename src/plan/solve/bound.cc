#include "evenspan/plan/bound.h"

#include <algorithm>
#include <cmath>
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

// The bound on all causal documents together, for one density: see bound.h.
class SharedSlack {
 public:
  SharedSlack(const Request& request, double most_work, double most_tokens, double density)
      : documents_(request.documents),
        num_ranks_(request.num_ranks()),
        pair_(request.cost.pair_seconds),
        token_(request.cost.token_seconds),
        most_work_(most_work),
        density_(density),
        base_(most_work / density - most_tokens),
        slack_(num_ranks_ * most_tokens - static_cast<double>(documents_.total_tokens())) {
    for (const Document& document : documents_.all()) {
      const auto length = static_cast<double>(document.length);
      slack_ += document.mask.kind == MaskKind::causal
                    ? std::max(0.0, -excess_between(0, std::min(first_dense(), length)))
                    : length * std::max(0.0, 1 - (pair_ + token_) / density_);
    }
  }

  double key_tokens() {
    for (const Document& document : documents_.all()) {
      if (document.mask.kind == MaskKind::causal) add(static_cast<double>(document.length));
    }
    std::sort(gains_.begin(), gains_.end(), [](const Gain& a, const Gain& b) { return a.slope > b.slope; });
    double left = slack_;
    for (const Gain& gain : gains_) {
      const double used = std::min(left, gain.slack);
      value_ -= used * gain.slope;
      left -= used;
    }
    return value_;
  }

 private:
  struct Gain {  // tokens that need not travel, for each token of slack
    double slope, slack;
  };

  double work_between(double begin, double end) const {
    return pair_ * (end * (end + 1) - begin * (begin + 1)) / 2 + token_ * (end - begin);
  }
  double excess_between(double begin, double end) const { return work_between(begin, end) / density_ - (end - begin); }
  double first_dense() const {
    if (token_ > density_) return 0;
    return pair_ > 0 ? std::floor((density_ - token_) / pair_) : HUGE_VAL;
  }

  // The least `begin` with linear (end - begin) + quadratic (end (end + 1) - begin (begin + 1)) / 2 <= most, where that
  // falls in begin.
  static double least_begin(double quadratic, double linear, double end, double most) {
    if (quadratic == 0) return end - most / linear;
    const double half = linear / quadratic + 0.5;  // begin^2 + 2 half begin = rest
    const double rest = end * (end + 2 * half) - 2 * most / quadratic;
    const double root = std::sqrt(std::max(0.0, half * half + rest));
    return half > 0 ? rest / (root + half) : root - half;  // the larger one
  }

  void add(double length) {
    const double dense = std::min(first_dense(), length);
    const double whole_excess = excess_between(dense, length);
    const double whole_work = work_between(0, length);
    const auto least_for_work = [&](double most) {
      return whole_work <= most ? 0 : least_begin(pair_, token_, length, most);
    };
    const auto least_for_excess = [&](double most) {
      return whole_excess <= most ? 0 : least_begin(pair_ / density_, token_ / density_ - 1, length, most);
    };
    std::vector<Gain> terms;  // with the slack from which on there is no more to gain
    double slope = 0;
    for (int32_t ranks = 1; ranks < num_ranks_; ++ranks) {
      const double of_work = least_for_work(ranks * most_work_);
      const double at_once = std::max(of_work, least_for_excess(ranks * base_));
      if (at_once == 0) break;
      value_ += at_once;
      const double enough = excess_between(std::max(of_work, dense), length) - ranks * base_;
      const double slack = std::min(enough, slack_);
      if (slack <= 0) continue;
      const double with_slack = slack < enough ? std::max(of_work, least_for_excess(ranks * base_ + slack)) : of_work;
      terms.push_back({(at_once - with_slack) / slack, slack});
      slope += terms.back().slope;
    }
    std::sort(terms.begin(), terms.end(), [](const Gain& a, const Gain& b) { return a.slack < b.slack; });
    double used = 0;
    for (const Gain& term : terms) {
      gains_.push_back({slope, term.slack - used});
      used = term.slack;
      slope -= term.slope;
    }
  }

  const Documents& documents_;
  const int32_t num_ranks_;
  const double pair_, token_, most_work_, density_;
  const double base_;  // excess that a rank may have without slack
  double slack_;
  double value_ = 0;
  std::vector<Gain> gains_;
};

constexpr int kDensities = 32;  // that are tried

double shared_key_tokens(const Request& request, double most_work, double most_tokens) {
  double most = 0;
  for (int i = 1; i <= kDensities; ++i) {
    const double density = most_work / most_tokens * i / kDensities;
    most = std::max(most, SharedSlack(request, most_work, most_tokens, density).key_tokens());
  }
  return most;
}

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
  int64_t of_work = 0, of_full = 0;
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
      if (full) of_full += tokens;
      of_work += least(ranks, false);
    }
  }
  if (bound.key_tokens > 0) {
    const double shared = shared_key_tokens(request, most_work, most_tokens);
    bound.key_tokens = std::max(bound.key_tokens, of_full + static_cast<int64_t>(std::ceil(shared * (1 - 1e-9))));
  }
  if (bound.key_tokens > 0) bound.binding = 2 * of_work >= bound.key_tokens ? Binding::work : Binding::tokens;
  const AttentionShape& shape = request.shape;
  bound.key_value_bytes = bound.key_tokens * 2 * shape.num_kv_heads * shape.head_dim * num_bytes(shape.element);
  return bound;
}

}  // namespace evenspan::plan
