#include "plan/solve/repair.h"

#include <algorithm>

#include "plan/solve/span_work.h"

namespace evenspan::plan {
namespace {

class Repair {
 public:
  Repair(const Request& request, std::vector<std::vector<PlacedSpan>>* ranks) : request_(request), ranks_(*ranks) {
    for (const auto& spans : ranks_) {
      tokens_.push_back(0);
      for (const PlacedSpan& placed : spans) tokens_.back() += placed.span.size();
    }
  }

  void run(int64_t most_tokens) {
    for (size_t round = 0; round < 4 * ranks_.size(); ++round) {
      const auto most = static_cast<size_t>(std::max_element(tokens_.begin(), tokens_.end()) - tokens_.begin());
      const auto least = static_cast<size_t>(std::min_element(tokens_.begin(), tokens_.end()) - tokens_.begin());
      const int64_t surplus = std::min(tokens_[most] - most_tokens, most_tokens - tokens_[least]);
      if (surplus <= 0 || !exchange(most, least, surplus)) return;
    }
  }

 private:
  double density(const PlacedSpan& placed) const {
    return span_work(request_, placed) / static_cast<double>(placed.span.size());
  }

  // Tokens at the end of the span that have at most this work.
  int64_t end_with(const PlacedSpan& placed, double work) const {
    return largest_end(request_, placed, [work](int64_t, double part) { return part <= work; });
  }

  bool exchange(size_t from, size_t to, int64_t surplus) {
    if (ranks_[to].empty()) return false;
    const auto lighter = [this](const PlacedSpan& a, const PlacedSpan& b) { return density(a) < density(b); };
    const auto light = std::min_element(ranks_[from].begin(), ranks_[from].end(), lighter);
    const auto dense = std::max_element(ranks_[to].begin(), ranks_[to].end(), lighter);
    if (density(*light) >= density(*dense)) return false;
    const auto given = [&](int64_t tokens) {
      return PlacedSpan{light->document, Span{light->span.begin, light->span.begin + tokens}};
    };
    // The fewest light tokens that, for dense ones of the same work, leave the surplus behind.
    int64_t low = 1, high = light->span.size();
    while (low < high) {
      const int64_t tokens = low + (high - low) / 2;
      tokens - end_with(*dense, span_work(request_, given(tokens))) < surplus ? low = tokens + 1 : high = tokens;
    }
    const PlacedSpan gift = given(low);
    const int64_t returned = end_with(*dense, span_work(request_, gift));
    if (low <= returned) return false;
    const PlacedSpan back{dense->document, Span{dense->span.end - returned, dense->span.end}};
    light->span.begin = gift.span.end;
    dense->span.end = back.span.begin;
    ranks_[to].push_back(gift);
    if (!back.span.empty()) ranks_[from].push_back(back);
    for (const size_t r : {from, to}) std::erase_if(ranks_[r], [](const PlacedSpan& p) { return p.span.empty(); });
    tokens_[from] -= low - returned;
    tokens_[to] += low - returned;
    return true;
  }

  const Request& request_;
  std::vector<std::vector<PlacedSpan>>& ranks_;
  std::vector<int64_t> tokens_;  // [rank]
};

}  // namespace

void repair_tokens(const Request& request, int64_t most_tokens, std::vector<std::vector<PlacedSpan>>* ranks) {
  Repair(request, ranks).run(most_tokens);
}

}  // namespace evenspan::plan
