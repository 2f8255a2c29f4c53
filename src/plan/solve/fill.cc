#include "plan/solve/fill.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

#include "plan/solve/span_work.h"

namespace evenspan::plan {
namespace {

// How many documents are looked at for one that fits.
constexpr int kLookAhead = 64;

// What is left of a document.
struct Item {
  DocumentId document;
  Span span;
  double work = 0;
  double density() const { return work / static_cast<double>(span.size()); }
};

struct SpanLoad {
  int64_t tokens = 0;
  double work = 0;
};

class Fill {
 public:
  Fill(const Request& request, const FillTarget& target)
      : request_(request), target_(target), ranks_(static_cast<size_t>(request.num_ranks())) {
    for (int64_t d = 0; d < request.documents.size(); ++d) {
      put(DocumentId(d), Span{0, request.documents[DocumentId(d)].length});
    }
  }

  std::vector<std::vector<PlacedSpan>> run() {
    const int32_t num_ranks = request_.num_ranks();
    for (int32_t r = 0; r + 1 < num_ranks && !by_density_.empty(); ++r) {
      spans_ = &ranks_[static_cast<size_t>(r)];
      load_ = {};
      fill_rank(num_ranks - r);
    }
    spans_ = &ranks_.back();
    load_ = {};
    while (!by_density_.empty()) take(std::prev(by_density_.end())->second);
    return std::move(ranks_);
  }

 private:
  using Index = std::set<std::pair<double, size_t>>;

  void put(DocumentId document, Span span) {
    if (span.empty()) return;
    const Item item{document, span, span_work(request_, PlacedSpan{document, span})};
    by_density_.emplace(item.density(), items_.size());
    by_work_.emplace(item.work, items_.size());
    items_.push_back(item);
    rest_.tokens += span.size();
    rest_.work += item.work;
  }

  void remove(size_t i) {
    const Item& item = items_[i];
    by_density_.erase({item.density(), i});
    by_work_.erase({item.work, i});
    rest_.tokens -= item.span.size();
    rest_.work -= item.work;
  }

  // Places a part of the item on the rank; what is left of it goes back.
  void take(size_t i, Span part) {
    const Item item = items_[i];
    remove(i);
    put(item.document, Span{item.span.begin, part.begin});
    put(item.document, Span{part.end, item.span.end});
    spans_->push_back(PlacedSpan{item.document, part});
    load_.tokens += part.size();
    load_.work += part == item.span ? item.work : span_work(request_, spans_->back());
  }
  void take(size_t i) { take(i, items_[i].span); }

  template <class Fits>
  int64_t largest_end(const Item& item, Fits&& fits) const {
    return plan::largest_end(request_, PlacedSpan{item.document, item.span}, fits);
  }

  // The light end of what is left but for one item, which comes last, until `work` is reached.
  struct Light {
    SpanLoad before;
    size_t item = 0;
  };
  std::vector<Light> light_end(double work, size_t last) const {
    std::vector<Light> light;
    SpanLoad sum;
    const auto add = [&](size_t i) {
      light.push_back({sum, i});
      sum.tokens += items_[i].span.size();
      sum.work += items_[i].work;
    };
    for (auto at = by_density_.begin(); at != by_density_.end() && sum.work < work; ++at) {
      if (at->second != last) add(at->second);
    }
    add(last);
    return light;
  }

  // How many light tokens `work` takes: whole items, then the beginning of one.
  double tokens_for(double work, const std::vector<Light>& light) const {
    if (work <= 0) return 0;
    const auto at = std::prev(
        std::upper_bound(light.begin(), light.end(), work, [](double w, const Light& l) { return w < l.before.work; }));
    const Item& item = items_[at->item];
    const double missing = work - at->before.work;
    const int64_t rest =
        missing >= item.work ? 0 : largest_end(item, [&](int64_t, double part) { return item.work - part >= missing; });
    return static_cast<double>(at->before.tokens + item.span.size() - rest);
  }

  void fill_rank(int32_t ranks_left) {
    const auto rest_tokens = static_cast<double>(rest_.tokens);
    const double mean_tokens = rest_tokens / ranks_left;
    const double least = std::min(mean_tokens, rest_tokens - (ranks_left - 1) * target_.aim_tokens);

    const size_t densest = std::prev(by_density_.end())->second;
    const Item item = items_[densest];
    double work = rest_.work / ranks_left;
    const double most_work = std::min(rest_.work, std::max(work, target_.cutting_work));
    const std::vector<Light> light = light_end(most_work, densest);
    const auto end_with = [&](double all) {
      return largest_end(item, [&](int64_t tokens, double part) {
        return part <= all + target_.tolerance && static_cast<double>(tokens) <= target_.most_tokens &&
               (part >= all - target_.tolerance ||
                static_cast<double>(tokens) + tokens_for(all - part, light) >= least);
      });
    };
    int64_t size = end_with(work);
    if (size < item.span.size() && most_work > work) {
      work = most_work;
      size = end_with(work);
    }
    if (size == 0) size = largest_end(item, [&](int64_t, double part) { return part <= work; });
    if (size > 0) take(densest, Span{item.span.end - size, item.span.end});
    add_dense(work, mean_tokens, light);
    add_light(work);
  }

  // Dense documents, while the rank would otherwise need more light tokens than the mean allows.
  void add_dense(double work, double mean_tokens, const std::vector<Light>& light) {
    for (;;) {
      const double missing = work - load_.work;
      const double light_tokens = tokens_for(missing, light);
      const double excess = static_cast<double>(load_.tokens) + light_tokens - mean_tokens;
      if (missing <= 0 || excess <= 0) return;
      const double light_density = missing / light_tokens;
      std::optional<size_t> best;
      double most_saved = 0;
      auto at = by_work_.upper_bound({missing, items_.size()});
      for (int step = 0; step < kLookAhead && at != by_work_.begin(); ++step) {
        const Item& item = items_[(--at)->second];
        const double saved = item.work / light_density - static_cast<double>(item.span.size());
        if (saved <= excess && saved > most_saved) {
          most_saved = saved;
          best = at->second;
        }
      }
      if (best) {
        take(*best);
        continue;
      }
      // None fits whole: the end of one, where the rank would have too many tokens. The lightest that is dense enough,
      // since the whole document up to there travels.
      const double too_many = static_cast<double>(load_.tokens) + light_tokens - target_.most_tokens;
      if (too_many <= 0 || by_density_.empty()) return;
      const double enough = too_many < light_tokens ? missing / (light_tokens - too_many) : HUGE_VAL;
      auto dense = by_density_.lower_bound({enough, 0});
      if (dense == by_density_.end()) --dense;
      const Item item = items_[dense->second];
      const int64_t size = largest_end(item, [&](int64_t tokens, double part) {
        return part <= missing && part / light_density - static_cast<double>(tokens) <= too_many;
      });
      if (size == 0) return;
      take(dense->second, Span{item.span.end - size, item.span.end});
      if (size < item.span.size()) return;
    }
  }

  void add_light(double work) {
    while (!by_density_.empty()) {
      const double missing = work - load_.work;
      if (missing <= target_.tolerance) return;
      const size_t lightest = by_density_.begin()->second;
      if (items_[lightest].work <= missing + target_.tolerance) {
        take(lightest);
        continue;
      }
      // The largest that still fits; then the beginning of the smallest that does not.
      const auto above = by_work_.upper_bound({missing + target_.tolerance, items_.size()});
      if (above != by_work_.begin()) {
        take(std::prev(above)->second);
        continue;
      }
      const Item item = items_[above->second];
      const int64_t rest = largest_end(item, [&](int64_t, double part) { return part < item.work - missing; });
      if (rest < item.span.size()) take(above->second, Span{item.span.begin, item.span.end - rest});
      return;
    }
  }

  const Request& request_;
  const FillTarget target_;
  std::vector<Item> items_;
  Index by_density_, by_work_;  // of the items that are left
  SpanLoad rest_;
  std::vector<std::vector<PlacedSpan>> ranks_;
  std::vector<PlacedSpan>* spans_ = nullptr;  // of the rank that is being filled
  SpanLoad load_;
};

}  // namespace

std::vector<std::vector<PlacedSpan>> fill(const Request& request, const FillTarget& target) {
  return Fill(request, target).run();
}

}  // namespace evenspan::plan
