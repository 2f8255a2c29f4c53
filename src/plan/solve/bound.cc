#include "evenspan/plan/bound.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
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
    for (const Document& document : documents_.all()) {
      if (document.mask.kind == MaskKind::causal) add(static_cast<double>(document.length));
    }
    std::sort(cut_.begin(), cut_.end(), [](const Cut& a, const Cut& b) { return a.gain > b.gain; });
  }

  // Key tokens that travel at least.
  double by_chords() const { return chords(0).keys(slack_); }
  // The documents that gain most share slack in steps, the others along their chords.
  double in_steps() const {
    const size_t exact = std::min(cut_.size(), kExact);
    const Chords others = chords(exact);
    std::vector<double> least(kSteps + exact + 1, 0.0);  // [steps that the exact ones so far have]
    for (size_t i = 0; i < exact; ++i) {
      std::vector<double> with;
      for (size_t step = 0; step <= kSteps; ++step) {
        with.push_back(keys(cut_[i], slack_ * static_cast<double>(step) / kSteps));
      }
      for (size_t steps = least.size(); steps-- > 0;) {
        double best = HUGE_VAL;
        for (size_t own = 0; own <= std::min(steps, kSteps); ++own)
          best = std::min(best, least[steps - own] + with[own]);
        least[steps] = best;
      }
    }
    double fewest = HUGE_VAL;
    for (size_t steps = 0; steps < least.size(); ++steps) {
      // Each of them may have up to a step less than its steps.
      const double left = slack_ * (1 - (static_cast<double>(steps) - static_cast<double>(exact)) / kSteps);
      fewest = std::min(fewest, least[steps] + others.keys(std::clamp(left, 0.0, slack_)));
    }
    return fewest;
  }

 private:
  static constexpr size_t kExact = 4, kSteps = 64;

  // Keys of documents that share slack, from below, along chords.
  struct Chords {
    struct Gain {  // keys that need not travel, for each token of slack
      double slope, slack;
    };
    double without_slack = 0;
    std::vector<Gain> gains;  // steepest first

    double keys(double slack) const {
      double sum = without_slack;
      for (const Gain& gain : gains) {
        const double used = std::min(slack, gain.slack);
        sum -= used * gain.slope;
        slack -= used;
      }
      return sum;
    }
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

  // A document that has to be cut, and where: [ranks - 1] for so many ranks that hold its end.
  struct Cut {
    double length = 0, dense = 0;  // the first position of a dense token
    std::vector<double> for_work;  // the least beginning that their work allows
    double gain = 0;               // keys that all the slack saves
  };

  double least_for_excess(const Cut& cut, double most) const {
    if (excess_between(cut.dense, cut.length) <= most) return 0;
    return least_begin(pair_ / density_, token_ / density_ - 1, cut.length, most);
  }
  double begin_with(const Cut& cut, size_t i, double slack) const {
    return std::max(cut.for_work[i], least_for_excess(cut, static_cast<double>(i + 1) * base_ + slack));
  }
  double keys(const Cut& cut, double slack) const {
    double sum = 0;
    for (size_t i = 0; i < cut.for_work.size(); ++i) sum += begin_with(cut, i, slack);
    return sum;
  }

  void add(double length) {
    Cut cut;
    cut.length = length;
    cut.dense = std::min(first_dense(), length);
    const double whole_work = work_between(0, length);
    for (int32_t ranks = 1; ranks < num_ranks_; ++ranks) {
      const double most = ranks * most_work_;
      const double of_work = whole_work <= most ? 0 : least_begin(pair_, token_, length, most);
      if (of_work == 0 && least_for_excess(cut, ranks * base_) == 0) break;
      cut.for_work.push_back(of_work);
    }
    if (cut.for_work.empty()) return;
    cut.gain = keys(cut, 0) - keys(cut, slack_);
    cut_.push_back(std::move(cut));
  }

  // Of all documents from `first` on.
  Chords chords(size_t first) const {
    Chords all;
    for (size_t i = first; i < cut_.size(); ++i) add_chords(cut_[i], &all);
    std::sort(all.gains.begin(), all.gains.end(), [](const auto& a, const auto& b) { return a.slope > b.slope; });
    return all;
  }

  void add_chords(const Cut& cut, Chords* chords) const {
    std::vector<Chords::Gain> terms;  // with the slack from which on there is no more to gain
    double slope = 0;
    for (size_t i = 0; i < cut.for_work.size(); ++i) {
      const double at_once = begin_with(cut, i, 0);
      chords->without_slack += at_once;
      const double enough =
          excess_between(std::max(cut.for_work[i], cut.dense), cut.length) - static_cast<double>(i + 1) * base_;
      const double slack = std::min(enough, slack_);
      if (slack <= 0) continue;
      const double with_slack = slack < enough ? begin_with(cut, i, slack) : cut.for_work[i];
      terms.push_back({(at_once - with_slack) / slack, slack});
      slope += terms.back().slope;
    }
    std::sort(terms.begin(), terms.end(), [](const auto& a, const auto& b) { return a.slack < b.slack; });
    double used = 0;
    for (const Chords::Gain& term : terms) {
      chords->gains.push_back({slope, term.slack - used});
      used = term.slack;
      slope -= term.slope;
    }
  }

  const Documents& documents_;
  const int32_t num_ranks_;
  const double pair_, token_, most_work_, density_;
  const double base_;  // excess that a rank may have without slack
  double slack_;
  std::vector<Cut> cut_;
};

constexpr int kDensities = 32;  // that are tried,
constexpr size_t kInSteps = 4;  // and of them those that are looked at in steps too

double shared_key_tokens(const Request& request, double most_work, double most_tokens) {
  std::vector<std::pair<double, double>> found;  // by chords, and the density
  for (int i = 1; i <= kDensities; ++i) {
    const double density = most_work / most_tokens * i / kDensities;
    found.emplace_back(SharedSlack(request, most_work, most_tokens, density).by_chords(), density);
  }
  std::sort(found.rbegin(), found.rend());
  double most = found.front().first;
  for (size_t i = 0; i < kInSteps; ++i) {
    most = std::max(most, SharedSlack(request, most_work, most_tokens, found[i].second).in_steps());
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

namespace {

// The most `size` in [0, most] for which `fits(size)`, which holds up to some size.
template <class Fits>
int64_t largest(int64_t most, Fits&& fits) {
  int64_t low = 0, high = most;
  while (low < high) {
    const int64_t middle = low + (high - low + 1) / 2;
    fits(middle) ? low = middle : high = middle - 1;
  }
  return low;
}

// What one document's own size makes travel, by the proof in bound.h. With a prefix of p tokens a rank reads max(M_i,
// p) keys, so each further rank moves max(M_(j+1), p).
//
// With a window of w keys, a rank with n_i tokens of the document lacks M_i - n_i of the positions before its last one.
// Between two positions that it holds, or before its first, it reads all that it lacks, or w - 1 of it: so it moves all
// M_i - n_i, or at least w - 1. The sum over the ranks of min(w - 1, M_i - n_i) is at least min(w - 1, M_2 + M_3 +
// ...), and at least the sum of min(w - 1, M_i - n), n being the most tokens that a rank may have of the document: C,
// or as many of its first ones, which are the lightest, as have work W.
//
// Of these two masks, the work of what else a rank must hold is left out.
class OneDocument {
 public:
  // `most_tokens` of a rank; infinite: its work alone counts.
  OneDocument(const Request& request, const Document& document, const LightestTokens& lightest, double most_work,
              double most_tokens)
      : request_(request), document_(document), lightest_(lightest), most_work_(most_work), most_tokens_(most_tokens) {
    for (int64_t ranks = 1; ranks < request.num_ranks(); ++ranks) {
      const int64_t tail = largest(document.length, [&](int64_t size) { return holds(ranks, size); });
      if (tail == document.length) break;
      cuts_.push_back(document.length - tail);
    }
  }

  bool is_cut() const { return !cuts_.empty(); }
  int64_t key_tokens() const {
    const int64_t extent = std::min(document_.mask.extent, document_.length);
    switch (document_.mask.kind) {
      case MaskKind::causal:
        return std::accumulate(cuts_.begin(), cuts_.end(), int64_t{0});
      case MaskKind::full:
        return static_cast<int64_t>(cuts_.size()) * document_.length;
      case MaskKind::prefix:
        return std::accumulate(cuts_.begin(), cuts_.end(), int64_t{0},
                               [extent](int64_t sum, int64_t cut) { return sum + std::max(cut, extent); });
      case MaskKind::window:
        return of_window(extent - 1);
    }
    return 0;
  }

 private:
  // Whether so many ranks may hold the last `size` positions.
  bool holds(int64_t ranks, int64_t size) const {
    const auto count = static_cast<double>(ranks);
    const Span tail{document_.length - size, document_.length};
    double work = request_.cost.work(num_pairs(document_, tail), size);
    if (static_cast<double>(size) > count * most_tokens_) return false;
    const bool with_others = document_.mask.kind == MaskKind::causal || document_.mask.kind == MaskKind::full;
    if (with_others && most_tokens_ < HUGE_VAL) {
      const double others = static_cast<double>(request_.num_ranks() - ranks) * most_tokens_;
      const int64_t rest = request_.documents.total_tokens() - size;
      work += lightest_.work(static_cast<int64_t>(std::max(0.0, static_cast<double>(rest) - others)));
    }
    return work <= count * most_work_;
  }

  int64_t of_window(int64_t before) const {
    const int64_t own = largest(document_.length, [&](int64_t size) {
      return static_cast<double>(size) <= most_tokens_ &&
             request_.cost.work(num_pairs(document_, Span{0, size}), size) <= most_work_;
    });
    int64_t sum = 0, of_ranks = std::min(before, document_.length - own);
    for (const int64_t cut : cuts_) {
      sum += cut;
      of_ranks += std::clamp<int64_t>(cut - own, 0, before);
    }
    return cuts_.empty() ? 0 : std::max(std::min(before, sum), of_ranks);
  }

  const Request& request_;
  const Document& document_;
  const LightestTokens& lightest_;
  const double most_work_, most_tokens_;
  std::vector<int64_t> cuts_;  // [ranks - 1]: the least position from which on so many ranks hold all, while above 0
};

}  // namespace

Bound lower_bound(const Request& request, const BalanceLimits& limits) {
  const LightestTokens lightest(request);
  const auto num_ranks = static_cast<double>(request.num_ranks());
  Bound bound;
  bound.limits = limits;
  for (const Document& document : request.documents.all()) {
    bound.work_seconds += request.cost.work(num_pairs(document, Span{0, document.length}), document.length);
  }
  bound.work_seconds /= num_ranks;
  const double most_work = bound.work_seconds * limits.work_max_over_mean;
  const double most_tokens =
      static_cast<double>(request.documents.total_tokens()) / num_ranks * limits.tokens_max_over_mean;
  int64_t of_work = 0, of_others = 0;  // others: not causal
  bool any_cut = false, cut_for_work = false;
  for (const Document& document : request.documents.all()) {
    const OneDocument within_both(request, document, lightest, most_work, most_tokens);
    if (!within_both.is_cut()) continue;
    const OneDocument within_work(request, document, lightest, most_work, HUGE_VAL);
    any_cut = true;
    cut_for_work = cut_for_work || within_work.is_cut();
    bound.key_tokens += within_both.key_tokens();
    if (document.mask.kind != MaskKind::causal) of_others += within_both.key_tokens();
    of_work += within_work.key_tokens();
  }
  if (any_cut) {
    const double shared = shared_key_tokens(request, most_work, most_tokens);
    bound.key_tokens = std::max(bound.key_tokens, of_others + static_cast<int64_t>(std::ceil(shared * (1 - 1e-9))));
    bound.binding = cut_for_work && 2 * of_work >= bound.key_tokens ? Binding::work : Binding::tokens;
  }
  const AttentionShape& shape = request.shape;
  bound.key_value_bytes = bound.key_tokens * 2 * shape.num_kv_heads * shape.head_dim * num_bytes(shape.element);
  return bound;
}

}  // namespace evenspan::plan
