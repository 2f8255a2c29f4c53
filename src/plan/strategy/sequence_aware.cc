// Queries stay at home; keys and values go only where a tile needs them, once per receiver. The placement is a
// two-ended fill: documents in one stream from the most work per token to the least, each rank takes from both ends of
// what is left, so many tokens from the heavy one that its tokens and its work both meet the mean.
#include <numeric>

#include "plan/strategy/parts.h"
#include "plan/strategy/table.h"

namespace evenspan::plan {
namespace {

class TwoEndedFill {
 public:
  explicit TwoEndedFill(const Request& request) : request_(request), order_(request.documents.all().size()) {
    std::iota(order_.begin(), order_.end(), 0);
    std::vector<double> density(order_.size());
    for (size_t d = 0; d < order_.size(); ++d) {
      const Document& document = request.documents.all()[d];
      density[d] = span_work(d, Span{0, document.length}) / static_cast<double>(document.length);
    }
    std::stable_sort(order_.begin(), order_.end(), [&](size_t a, size_t b) { return density[a] > density[b]; });
    tokens_before_ = {0};
    work_before_ = {0};
    for (const size_t d : order_) {
      const int64_t length = request.documents.all()[d].length;
      tokens_before_.push_back(tokens_before_.back() + length);
      work_before_.push_back(work_before_.back() + span_work(d, Span{0, length}));
    }
  }

  std::vector<std::vector<PlacedSpan>> fill() {
    const int32_t num_ranks = request_.num_ranks();
    const double most_tokens = static_cast<double>(total()) / num_ranks * (1 + request_.options.token_slack / 2);
    std::vector<std::vector<PlacedSpan>> spans(static_cast<size_t>(num_ranks));
    for (int32_t r = 0; r < num_ranks; ++r) {
      const int32_t ranks_left = num_ranks - r;
      const int64_t tokens_left = total() - heavy_ - light_;
      const int64_t tokens = (tokens_left + ranks_left - 1) / ranks_left;
      const double work = (work_before_.back() - heavy_work(heavy_) - light_work(light_)) / ranks_left;
      int64_t light = tokens - heavy_share(tokens, work);
      int64_t heavy = tokens - light;
      if (ranks_left > 1) {
        // A whole number of light documents saves cuts, where the tokens allow it; the heavy end makes up the work.
        const int64_t whole = whole_light(light);
        const int64_t more = heavy_for(work - (light_work(light_ + whole) - light_work(light_)), tokens_left - whole);
        if (static_cast<double>(whole + more) <= most_tokens) {
          light = whole;
          heavy = more;
        }
        heavy = snap(heavy, tokens_left - light, work);
      }
      take(&spans[static_cast<size_t>(r)], heavy, light);
    }
    return spans;
  }

 private:
  // A border of a document within this part of a rank's work is taken instead of a cut.
  static constexpr double kSnap = 2e-3;

  int64_t total() const { return tokens_before_.back(); }

  double span_work(size_t document, Span span) const {
    return request_.cost.work(num_pairs(request_.documents.all()[document], span), span.size());
  }

  int64_t length(size_t position) const { return tokens_before_[position + 1] - tokens_before_[position]; }

  // The position in the order of the document that holds token `t` of the stream, 0 <= t < total.
  size_t position_of(int64_t t) const {
    const auto at = std::upper_bound(tokens_before_.begin(), tokens_before_.end(), t);
    return static_cast<size_t>(at - tokens_before_.begin()) - 1;
  }

  // Work of the first `t` tokens from the heavy end, each document from its last token to its first.
  double heavy_work(int64_t t) const {
    if (t == total()) return work_before_.back();
    const size_t p = position_of(t);
    return work_before_[p] + span_work(order_[p], Span{length(p) - (t - tokens_before_[p]), length(p)});
  }

  // Work of the first `t` tokens from the light end, each document from its first token to its last.
  double light_work(int64_t t) const {
    if (t == 0) return 0;
    const size_t p = position_of(total() - t);
    const int64_t part = tokens_before_[p + 1] - (total() - t);
    return work_before_.back() - work_before_[p + 1] + span_work(order_[p], Span{0, part});
  }

  // How many of `tokens` to take from the heavy end to come nearest to `work`.
  int64_t heavy_share(int64_t tokens, double work) const {
    int64_t low = 0, high = tokens;
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      const double got =
          heavy_work(heavy_ + middle) - heavy_work(heavy_) + light_work(light_ + tokens - middle) - light_work(light_);
      if (got < work) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

  // The least number of heavy tokens, at most `most`, with at least that work.
  int64_t heavy_for(double work, int64_t most) const {
    int64_t low = 0, high = most;
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      if (heavy_work(heavy_ + middle) - heavy_work(heavy_) < work) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

  // The most tokens, at most `tokens`, after which the light end stands at a border between documents.
  int64_t whole_light(int64_t tokens) const {
    const int64_t edge = total() - light_ - tokens;
    const auto border = std::lower_bound(tokens_before_.begin(), tokens_before_.end(), edge);
    return std::max<int64_t>(0, total() - light_ - *border);
  }

  // A border between documents close to `heavy` heavy tokens, if taking it changes the rank's work by little.
  int64_t snap(int64_t heavy, int64_t most, double work) const {
    if (heavy >= most) return most;
    const size_t p = position_of(heavy_ + heavy);
    for (const int64_t border : {tokens_before_[p] - heavy_, tokens_before_[p + 1] - heavy_}) {
      if (border < 0 || border > most) continue;
      const double change = heavy_work(heavy_ + border) - heavy_work(heavy_ + heavy);
      if (change <= kSnap * work && -change <= kSnap * work) return border;
    }
    return heavy;
  }

  void take(std::vector<PlacedSpan>* spans, int64_t heavy, int64_t light) {
    const auto add = [&](size_t p, Span span) {
      spans->push_back(PlacedSpan{DocumentId(static_cast<int64_t>(order_[p])), span});
    };
    for (const int64_t stop = heavy_ + heavy; heavy_ < stop;) {
      const size_t p = position_of(heavy_);
      const int64_t taken = heavy_ - tokens_before_[p];
      const int64_t now = std::min(stop - heavy_, length(p) - taken);
      add(p, Span{length(p) - taken - now, length(p) - taken});
      heavy_ += now;
    }
    for (const int64_t stop = light_ + light; light_ < stop;) {
      const size_t p = position_of(total() - light_ - 1);
      const int64_t taken = light_ - (total() - tokens_before_[p + 1]);
      const int64_t now = std::min(stop - light_, length(p) - taken);
      add(p, Span{taken, taken + now});
      light_ += now;
    }
  }

  const Request& request_;
  std::vector<size_t> order_;           // documents from the most work per token to the least
  std::vector<int64_t> tokens_before_;  // [position in the order]
  std::vector<double> work_before_;
  int64_t heavy_ = 0;  // tokens taken from the heavy end
  int64_t light_ = 0;  // and from the light end
};

}  // namespace

Draft write_sequence_aware(const Request& request) {
  Placement placement(request.documents, TwoEndedFill(request).fill());
  std::vector<Task> tasks = tasks_with_queries_at_home(request, placement);
  return Draft{std::move(placement), std::move(tasks), {}};
}

Traffic sequence_aware_traffic(const Request& request, const Placement& placement) {
  const AttentionShape& shape = request.shape;
  const int64_t token_bytes = int64_t{2} * shape.num_kv_heads * shape.head_dim * num_bytes(shape.element);
  return Traffic{remote_key_tokens(request, placement) * token_bytes, 1};
}

}  // namespace evenspan::plan
