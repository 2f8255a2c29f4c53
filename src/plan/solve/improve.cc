#include "plan/solve/improve.h"

#include <algorithm>
#include <utility>

#include "plan/solve/span_work.h"

namespace evenspan::plan {
namespace {

using Spans = std::vector<PlacedSpan>;

// The temperature in keys, as a fraction of a rank's mean tokens, and what a token above the limit costs in keys: at
// the beginning and at the end, in geometric steps. One token of room at the end of a document cut into k parts saves
// up to k keys, so that the limits have to cost more than the keys that breaking them saves.
constexpr double kTemperature[] = {1e-2, 1e-4};
constexpr double kTokenPrice[] = {60, 400};
constexpr double kWorkPrice = 2;  // of the tokens with as much work, times as much as tokens above the limit
constexpr int kStep = 256;        // moves at one temperature

// What of the moves: exchanges of two spans, gifts of one, gifts of a part; the others shift a cut.
constexpr double kExchanges = 0.4, kGifts = 0.1, kParts = 0.03;
constexpr double kFromWorst = 0.5;  // while a rank is above the limits, of the moves that start there

class Random {
 public:
  uint64_t next() {  // xorshift64 (Marsaglia 2003)
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }
  double unit() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  size_t below(size_t n) { return next() % n; }

 private:
  uint64_t state_ = 88172645463325252ULL;
};

// Joins the span with its neighbours.
void add(PlacedSpan placed, Spans* spans) {
  for (size_t i = 0; i < spans->size();) {
    const PlacedSpan& other = (*spans)[i];
    if (other.document == placed.document &&
        (other.span.end == placed.span.begin || other.span.begin == placed.span.end)) {
      placed.span.begin = std::min(placed.span.begin, other.span.begin);
      placed.span.end = std::max(placed.span.end, other.span.end);
      (*spans)[i] = spans->back();
      spans->pop_back();
      i = 0;
    } else {
      ++i;
    }
  }
  spans->push_back(placed);
}

void remove(size_t i, Spans* spans) {
  (*spans)[i] = spans->back();
  spans->pop_back();
}

// All spans but two; there may be no second one.
Spans without(size_t first, size_t second, const Spans& spans) {
  Spans rest;
  rest.reserve(spans.size() + 1);
  for (size_t i = 0; i < spans.size(); ++i) {
    if (i != first && i != second) rest.push_back(spans[i]);
  }
  return rest;
}

// Takes a part out of a span.
void take_out(size_t i, Span part, Spans* spans) {
  const PlacedSpan placed = (*spans)[i];
  remove(i, spans);
  for (const Span rest : {Span{placed.span.begin, part.begin}, Span{part.end, placed.span.end}}) {
    if (!rest.empty()) spans->push_back({placed.document, rest});
  }
}

// Keys that the spans' queries see, their own among them.
class SeenKeys {
 public:
  explicit SeenKeys(const Documents& documents) : documents_(documents) {}

  bool is_whole(const PlacedSpan& placed) const { return placed.span.size() == documents_[placed.document].length; }

  int64_t count(const Spans& spans) const {
    int64_t keys = 0;
    for (size_t i = 0; i < spans.size(); ++i) {
      const PlacedSpan& placed = spans[i];
      keys += is_whole(placed) ? placed.span.size() : of_part(spans, i);
    }
    return keys;
  }

 private:
  // Of all parts of the document, at the first of them.
  int64_t of_part(const Spans& spans, size_t first) const {
    const DocumentId document = spans[first].document;
    std::vector<Span> seen;
    for (size_t i = 0; i < spans.size(); ++i) {
      if (spans[i].document != document) continue;
      if (i < first) return 0;
      seen.push_back(needed_keys(documents_[document], spans[i].span));
    }
    int64_t keys = 0;
    for (const Span span : union_of(std::move(seen))) keys += span.size();
    return keys;
  }

  const Documents& documents_;
};

// What a rank has.
struct Load {
  int64_t tokens = 0;
  double work = 0;
  int64_t keys = 0;  // that are seen
};

Load load_of(const Request& request, const SeenKeys& seen_keys, const Spans& spans) {
  Load load;
  for (const PlacedSpan& placed : spans) {
    load.tokens += placed.span.size();
    load.work += span_work(request, placed);
  }
  load.keys = seen_keys.count(spans);
  return load;
}

class Search {
 public:
  Search(const Request& request, const PlacementGoal& goal, std::vector<Spans>* ranks)
      : request_(request),
        goal_(goal),
        mean_tokens_(static_cast<double>(request.documents.total_tokens()) / request.num_ranks()),
        seen_keys_(request.documents),
        ranks_(*ranks),
        loads_(ranks->size()) {
    double work = 0;
    for (size_t r = 0; r < ranks_.size(); ++r) {
      Spans joined;
      for (const PlacedSpan& placed : ranks_[r]) add(placed, &joined);
      ranks_[r] = std::move(joined);
      loads_[r] = load_of(request_, seen_keys_, ranks_[r]);
      keys_ += loads_[r].keys;
      work += loads_[r].work;
    }
    keys_ -= request.documents.total_tokens();
    token_work_ = work / static_cast<double>(request.documents.total_tokens());
  }

  void run(int64_t moves) {
    for (int64_t move = 0; move < moves; ++move) {
      if (move % kStep == 0) {
        if (start_step(static_cast<double>(move) / static_cast<double>(moves))) return;
      }
      const size_t a = worst_excess_ > 0 && random_.unit() < kFromWorst ? worst_ : random_.below(ranks_.size());
      if (ranks_[a].empty()) continue;
      const double kind = random_.unit();
      if (kind >= kExchanges + kGifts + kParts) {
        shift(a);
        continue;
      }
      const size_t b = random_.below(ranks_.size());
      if (a == b) continue;
      const size_t given = random_.below(ranks_[a].size());
      Span part = ranks_[a][given].span;
      if (kind < kExchanges) {
        if (!ranks_[b].empty()) exchange(a, given, part, b, random_.below(ranks_[b].size()));
        continue;
      }
      if (kind < kExchanges + kParts) {  // of any size, small ones more often
        const auto size = std::max<int64_t>(
            1, static_cast<int64_t>(static_cast<double>(part.size()) * random_.unit() * random_.unit()));
        part = random_.next() % 2 == 0 ? Span{part.end - size, part.end} : Span{part.begin, part.begin + size};
      }
      exchange(a, given, part, b, ranks_[b].size());
    }
  }

 private:
  struct Change {
    int64_t tokens = 0;
    double work = 0;
    void add(const Request& request, const PlacedSpan& placed, int sign) {
      tokens += sign * placed.span.size();
      work += sign * span_work(request, placed);
    }
  };

  // Cools down; whether the goal is reached.
  bool start_step(double progress) {
    const double left = 1 - progress;
    temperature_ = mean_tokens_ * (kTemperature[1] + (kTemperature[0] - kTemperature[1]) * left * left * left);
    token_price_ = kTokenPrice[0] + (kTokenPrice[1] - kTokenPrice[0]) * progress;
    worst_excess_ = 0;
    for (size_t r = 0; r < ranks_.size(); ++r) {
      const double here = excess(loads_[r].tokens, loads_[r].work);
      if (here > worst_excess_) {
        worst_excess_ = here;
        worst_ = r;
      }
    }
    return worst_excess_ == 0 && keys_ <= goal_.few_keys;
  }

  // Above the limits, in tokens.
  double excess(int64_t tokens, double work) const {
    return std::max(0.0, static_cast<double>(tokens - goal_.most_tokens)) +
           kWorkPrice * std::max(0.0, work - goal_.most_work) / token_work_;
  }

  // The most keys that giving a part of the span away saves.
  int64_t most_saved(const PlacedSpan& placed, Span part) const {
    return seen_keys_.is_whole(placed) ? 0 : needed_keys(request_.documents[placed.document], part).size();
  }

  // Whether a change of the sum to be lowered is taken: if it is below a threshold drawn from 0 to twice the
  // temperature. No exponential, as that of Metropolis: all ranks plan alike, whatever their mathematical library.
  bool accepts(double change) const { return change <= 2 * chance_ * temperature_; }

  // Does what `build` writes to after_a_ and after_b_ if that is accepted. `change` is that of a,
  // and b's the opposite. Most moves are refused without having been built, by what they save at most.
  template <class Build>
  void propose(size_t a, size_t b, const Change& change, int64_t most_saved, Build&& build) {
    Load &of_a = loads_[a], &of_b = loads_[b];
    const double above = token_price_ * (excess(of_a.tokens + change.tokens, of_a.work + change.work) +
                                         excess(of_b.tokens - change.tokens, of_b.work - change.work) -
                                         excess(of_a.tokens, of_a.work) - excess(of_b.tokens, of_b.work));
    chance_ = random_.unit();
    if (!accepts(above - static_cast<double>(most_saved))) return;
    build();
    const int64_t keys_a = seen_keys_.count(after_a_), keys_b = seen_keys_.count(after_b_);
    const int64_t keys = keys_a + keys_b - of_a.keys - of_b.keys;
    if (!accepts(above + static_cast<double>(keys))) return;
    ranks_[a].swap(after_a_);
    ranks_[b].swap(after_b_);
    of_a = {of_a.tokens + change.tokens, of_a.work + change.work, keys_a};
    of_b = {of_b.tokens - change.tokens, of_b.work - change.work, keys_b};
    keys_ += keys;
  }

  // A part of a's span for a whole one of b's, or for nothing, if b has no span of this number.
  void exchange(size_t a, size_t given, Span part, size_t b, size_t got) {
    const PlacedSpan from_a = ranks_[a][given];
    Change change;
    change.add(request_, {from_a.document, part}, -1);
    int64_t saved = most_saved(from_a, part);
    const bool returns = got < ranks_[b].size();
    PlacedSpan from_b;
    if (returns) {
      from_b = ranks_[b][got];
      change.add(request_, from_b, 1);
      saved += most_saved(from_b, from_b.span);
    }
    propose(a, b, change, saved, [&] {
      after_a_ = ranks_[a];
      after_b_ = ranks_[b];
      take_out(given, part, &after_a_);
      if (returns) {
        remove(got, &after_b_);
        add(from_b, &after_a_);
      }
      add({from_a.document, part}, &after_b_);
    });
  }

  // Where a span of the document ends, on any rank but one; {ranks, 0} if there is none.
  std::pair<size_t, size_t> ending_at(DocumentId document, int64_t end, size_t but) const {
    for (size_t r = 0; r < ranks_.size(); ++r) {
      if (r == but) continue;
      for (size_t i = 0; i < ranks_[r].size(); ++i) {
        if (ranks_[r][i].span.end == end && ranks_[r][i].document == document) return {r, i};
      }
    }
    return {ranks_.size(), 0};
  }

  // One of the rank's spans below which other ranks have some of the document.
  size_t random_upper(size_t rank) {
    const Spans& spans = ranks_[rank];
    size_t found = spans.size(), count = 0;
    for (size_t i = 0; i < spans.size(); ++i) {
      if (spans[i].span.begin > 0 && random_.below(++count) == 0) found = i;
    }
    return found;
  }

  void shift(size_t a) {
    const size_t upper = random_upper(a);
    if (upper == ranks_[a].size()) return;
    const PlacedSpan above = ranks_[a][upper];
    const std::pair<size_t, size_t> found = ending_at(above.document, above.span.begin, a);
    const size_t b = found.first, lower = found.second;
    if (b == ranks_.size()) return;
    const PlacedSpan below = ranks_[b][lower];
    const size_t given = random_.below(ranks_[a].size()), got = random_.below(ranks_[b].size() + 1);
    const bool returns = got < ranks_[b].size();
    const PlacedSpan from_a = ranks_[a][given], from_b = returns ? ranks_[b][got] : PlacedSpan{};
    if (from_a.document == above.document || (returns && from_b.document == above.document)) return;

    Change change;
    change.add(request_, from_a, -1);
    int64_t saved = most_saved(from_a, from_a.span);
    if (returns) {
      change.add(request_, from_b, 1);
      saved += most_saved(from_b, from_b.span);
    }
    const int64_t cut = shifted_cut(above, below, goal_.most_work - loads_[a].work - change.work);
    if (cut <= below.span.begin || cut >= above.span.end) return;
    if (cut < above.span.begin) {
      change.add(request_, {above.document, Span{cut, above.span.begin}}, 1);
    } else if (cut > above.span.begin) {
      change.add(request_, {above.document, Span{above.span.begin, cut}}, -1);
    }
    saved += std::max<int64_t>(0, above.span.begin - cut);
    propose(a, b, change, saved, [&] {
      after_a_ = without(upper, given, ranks_[a]);
      after_b_ = without(lower, got, ranks_[b]);
      after_a_.push_back({above.document, Span{cut, above.span.end}});
      after_b_.push_back({below.document, Span{below.span.begin, cut}});
      if (returns) add(from_b, &after_a_);
      add(from_a, &after_b_);
    });
  }

  // Where the upper span begins if it takes up so much work from the lower one, or gives as much if that is negative.
  int64_t shifted_cut(const PlacedSpan& above, const PlacedSpan& below, double room) const {
    if (room >= 0) {
      return above.span.begin - largest_end(request_, below, [room](int64_t, double work) { return work <= room; });
    }
    int64_t low = above.span.begin, high = above.span.end;  // the first one that gives enough
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      const double given = span_work(request_, {above.document, Span{above.span.begin, middle}});
      given >= -room ? high = middle : low = middle + 1;
    }
    return low;
  }

  const Request& request_;
  const PlacementGoal goal_;
  const double mean_tokens_;
  double token_work_ = 0;  // of a mean token
  SeenKeys seen_keys_;
  std::vector<Spans>& ranks_;
  std::vector<Load> loads_;  // [rank]
  int64_t keys_ = 0;         // that travel
  Random random_;
  double chance_ = 0;  // of the move that is being looked at
  double temperature_ = 0, token_price_ = 0;
  size_t worst_ = 0;  // rank
  double worst_excess_ = 0;
  Spans after_a_, after_b_;
};

}  // namespace

PlacementState state_of(const Request& request, const std::vector<Spans>& ranks) {
  PlacementState state;
  const SeenKeys seen_keys(request.documents);
  for (const Spans& spans : ranks) {
    const Load load = load_of(request, seen_keys, spans);
    state.most_work = std::max(state.most_work, load.work);
    state.most_tokens = std::max(state.most_tokens, load.tokens);
    state.keys += load.keys - load.tokens;
  }
  return state;
}

void improve(const Request& request, const PlacementGoal& goal, int64_t moves, std::vector<Spans>* ranks) {
  Search(request, goal, ranks).run(moves);
}

}  // namespace evenspan::plan
