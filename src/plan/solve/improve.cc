#include "plan/solve/improve.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <span>
#include <utility>

#include "plan/solve/rank_spans.h"
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

// How many keys the spans' queries see, of one document.
int64_t num_seen_keys(const Document& document, std::span<const Span> spans) {
  if (spans.size() == 1) return needed_keys(document, spans.front()).size();
  std::vector<Span> seen;
  for (const Span& span : spans) seen.push_back(needed_keys(document, span));
  int64_t keys = 0;
  for (const Span& whole : union_of(std::move(seen))) keys += whole.size();
  return keys;
}

// What a rank has.
struct RankLoad {
  int64_t tokens = 0;
  double work = 0;
  int64_t keys = 0;  // that are seen, the rank's own among them
};

RankLoad load_of(const Request& request, Spans spans) {
  RankLoad load;
  for (const PlacedSpan& placed : spans) {
    load.tokens += placed.span.size();
    load.work += span_work(request, placed);
  }
  std::sort(spans.begin(), spans.end());
  std::vector<Span> of_document;
  for (size_t i = 0; i < spans.size(); ++i) {
    of_document.push_back(spans[i].span);
    if (i + 1 < spans.size() && spans[i + 1].document == spans[i].document) continue;
    load.keys += num_seen_keys(request.documents[spans[i].document], of_document);
    of_document.clear();
  }
  return load;
}

// Spans that a rank gives away and gets.
struct Edit {
  Spans without, with;
};

class Search {
 public:
  Search(const Request& request, const PlacementGoal& goal, const std::vector<Spans>& ranks)
      : request_(request),
        goal_(goal),
        mean_tokens_(static_cast<double>(request.documents.total_tokens()) / request.num_ranks()),
        ranks_(request.documents.size(), ranks) {
    double work = 0;
    for (size_t r = 0; r < ranks_.num_ranks(); ++r) {
      loads_.push_back(load_of(request_, ranks_.in_order(r)));
      keys_ += loads_[r].keys;
      work += loads_[r].work;
    }
    keys_ -= request.documents.total_tokens();
    token_work_ = work / static_cast<double>(request.documents.total_tokens());
  }

  void run(int64_t moves) {
    for (int64_t move = 0; move < moves; ++move) {
      if (move % kStep == 0 && start_step(static_cast<double>(move) / static_cast<double>(moves))) return;
      const size_t a = worst_excess_ > 0 && random_.unit() < kFromWorst ? worst_ : random_.below(ranks_.num_ranks());
      if (ranks_.size(a) == 0) continue;
      const double kind = random_.unit();
      if (kind >= kExchanges + kGifts + kParts) {
        shift(a);
        continue;
      }
      const size_t b = random_.below(ranks_.num_ranks());
      if (a == b) continue;
      const Place given = random_place(a);
      Span part = ranks_[given].span;
      if (kind < kExchanges) {
        if (ranks_.size(b) > 0) exchange(given, part, b, random_place(b));
        continue;
      }
      if (kind < kExchanges + kParts) {  // of any size, small ones more often
        const auto size = std::max<int64_t>(
            1, static_cast<int64_t>(static_cast<double>(part.size()) * random_.unit() * random_.unit()));
        part = random_.next() % 2 == 0 ? Span{part.end - size, part.end} : Span{part.begin, part.begin + size};
      }
      exchange(given, part, b, std::nullopt);
    }
  }

  std::vector<Spans> spans() const {
    std::vector<Spans> spans;
    spans.reserve(ranks_.num_ranks());
    for (size_t r = 0; r < ranks_.num_ranks(); ++r) spans.push_back(ranks_.in_order(r));
    return spans;
  }

 private:
  using Place = RankSpans::Place;

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
    for (size_t r = 0; r < loads_.size(); ++r) {
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
    const Document& document = request_.documents[placed.document];
    return placed.span.size() == document.length ? 0 : needed_keys(document, part).size();
  }

  // Whether a change of the sum to be lowered is taken: if it is below a threshold drawn from 0 to twice the
  // temperature. No exponential, as that of Metropolis: all ranks plan alike, whatever their mathematical library.
  bool accepts(double change) const { return change <= 2 * chance_ * temperature_; }

  Place random_place(size_t rank) { return ranks_.place(rank, random_.below(ranks_.size(rank))); }

  // What the edit changes of the keys that the rank sees.
  int64_t change_of_keys(size_t rank, const Edit& edit) {
    int64_t change = 0;
    const auto count = [&](const PlacedSpan& edited) {
      const DocumentId document = edited.document;
      before_.clear();
      after_.clear();
      for (const Place& place : ranks_.places_of(document)) {
        if (place.rank != rank) continue;
        before_.push_back(ranks_[place].span);
        if (std::find(edit.without.begin(), edit.without.end(), ranks_[place]) == edit.without.end()) {
          after_.push_back(before_.back());
        }
      }
      for (const PlacedSpan& placed : edit.with) {
        if (placed.document == document) after_.push_back(placed.span);
      }
      const auto keys = [&](const std::vector<Span>& spans) {
        return spans.empty() ? 0 : num_seen_keys(request_.documents[document], spans);
      };
      change += keys(after_) - keys(before_);
    };
    // Each document once.
    for (const Spans* spans : {&edit.without, &edit.with}) {
      for (size_t i = 0; i < spans->size(); ++i) {
        const auto same = [&](const PlacedSpan& other) { return other.document == (*spans)[i].document; };
        const auto end = spans->begin() + static_cast<int64_t>(i);
        if (std::any_of(spans->begin(), end, same)) continue;
        if (spans == &edit.with && std::any_of(edit.without.begin(), edit.without.end(), same)) continue;
        count((*spans)[i]);
      }
    }
    return change;
  }

  // Whether edits of a and b are accepted, which `edit` writes to edit_a_ and edit_b_. `change` is that of a, and b's
  // the opposite. Most moves are refused by what they save at most.
  template <class Write>
  bool accepts(size_t a, size_t b, const Change& change, int64_t most_saved, Write&& write) {
    RankLoad &of_a = loads_[a], &of_b = loads_[b];
    const double above = token_price_ * (excess(of_a.tokens + change.tokens, of_a.work + change.work) +
                                         excess(of_b.tokens - change.tokens, of_b.work - change.work) -
                                         excess(of_a.tokens, of_a.work) - excess(of_b.tokens, of_b.work));
    chance_ = random_.unit();
    if (!accepts(above - static_cast<double>(most_saved))) return false;
    for (Spans* spans : {&edit_a_.without, &edit_a_.with, &edit_b_.without, &edit_b_.with}) spans->clear();
    write();
    const int64_t keys_a = change_of_keys(a, edit_a_), keys_b = change_of_keys(b, edit_b_);
    if (!accepts(above + static_cast<double>(keys_a + keys_b))) return false;
    of_a = {of_a.tokens + change.tokens, of_a.work + change.work, of_a.keys + keys_a};
    of_b = {of_b.tokens - change.tokens, of_b.work - change.work, of_b.keys + keys_b};
    keys_ += keys_a + keys_b;
    return true;
  }

  // A part of a rank's span for a whole one of b's, or for nothing.
  void exchange(Place given, Span part, size_t b, std::optional<Place> got) {
    const size_t a = given.rank;
    const PlacedSpan from_a = ranks_[given];
    Change change;
    change.add(request_, {from_a.document, part}, -1);
    int64_t saved = most_saved(from_a, part);
    PlacedSpan from_b;
    if (got) {
      from_b = ranks_[*got];
      change.add(request_, from_b, 1);
      saved += most_saved(from_b, from_b.span);
    }
    const Span rests[] = {{from_a.span.begin, part.begin}, {part.end, from_a.span.end}};
    const bool accepted = accepts(a, b, change, saved, [&] {
      edit_a_.without = {from_a};
      for (const Span& rest : rests) {
        if (!rest.empty()) edit_a_.with.push_back({from_a.document, rest});
      }
      edit_b_.with = {{from_a.document, part}};
      if (!got) return;
      edit_a_.with.push_back(from_b);
      edit_b_.without = {from_b};
    });
    if (!accepted) return;
    ranks_.replace_by_last(given);
    for (const Span& rest : rests) {
      if (!rest.empty()) ranks_.push(a, {from_a.document, rest});
    }
    if (got) {
      ranks_.replace_by_last(*got);
      ranks_.add(a, from_b);
    }
    ranks_.add(b, {from_a.document, part});
  }

  // One of the rank's spans below which other ranks have some of the document.
  std::optional<Place> random_upper(size_t rank) {
    std::optional<Place> found;
    size_t count = 0;
    for (const size_t slot : ranks_.upper_slots(rank)) {
      if (random_.below(++count) == 0) found = Place{rank, slot};
    }
    return found;
  }

  void shift(size_t a) {
    const std::optional<Place> upper = random_upper(a);
    if (!upper) return;
    const PlacedSpan above = ranks_[*upper];
    const std::optional<Place> lower = ranks_.ending_at(above.document, above.span.begin, a);
    if (!lower) return;
    const size_t b = lower->rank;
    const PlacedSpan below = ranks_[*lower];
    const Place given = random_place(a);
    const size_t number = random_.below(ranks_.size(b) + 1);
    const std::optional<Place> got = number < ranks_.size(b) ? std::optional(ranks_.place(b, number)) : std::nullopt;
    const PlacedSpan from_a = ranks_[given], from_b = got ? ranks_[*got] : PlacedSpan{};
    if (from_a.document == above.document || (got && from_b.document == above.document)) return;

    Change change;
    change.add(request_, from_a, -1);
    int64_t saved = most_saved(from_a, from_a.span);
    if (got) {
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
    const PlacedSpan new_above{above.document, Span{cut, above.span.end}};
    const PlacedSpan new_below{below.document, Span{below.span.begin, cut}};
    const bool accepted = accepts(a, b, change, saved, [&] {
      edit_a_ = {{above, from_a}, {new_above}};
      edit_b_ = {{below}, {new_below, from_a}};
      if (!got) return;
      edit_a_.with.push_back(from_b);
      edit_b_.without.push_back(from_b);
    });
    if (!accepted) return;
    ranks_.erase(*upper);
    ranks_.erase(given);
    ranks_.erase(*lower);
    if (got) ranks_.erase(*got);
    ranks_.push(a, new_above);
    ranks_.push(b, new_below);
    if (got) ranks_.add(a, from_b);
    ranks_.add(b, from_a);
  }

  // Where the upper span begins if it takes up so much work from the lower one, or gives as much if that is negative.
  int64_t shifted_cut(const PlacedSpan& above, const PlacedSpan& below, double room) const {
    const double pair = request_.cost.pair_seconds;
    // The work of a token that sees half a key more than those before it, and of the tokens that see a key more each.
    const double first = pair * (static_cast<double>(above.span.begin) + 0.5) + request_.cost.token_seconds;
    if (room >= 0) {
      const double square = first * first - 2 * pair * room;
      const double guess = square > 0 ? 2 * room / (first + std::sqrt(square)) : static_cast<double>(below.span.size());
      return above.span.begin - largest_fitting(below.span.size(), rounded(guess), [&](int64_t size) {
               const Span taken{below.span.end - size, below.span.end};
               return span_work(request_, {below.document, taken}) <= room;
             });
    }
    const double guess = -2 * room / (first + std::sqrt(first * first - 2 * pair * room));
    return above.span.begin + 1 + largest_fitting(above.span.size() - 1, rounded(guess), [&](int64_t size) {
             const Span given{above.span.begin, above.span.begin + size};
             return span_work(request_, {above.document, given}) < -room;
           });
  }
  static int64_t rounded(double size) {
    constexpr double kMost = 0x1p40;
    return static_cast<int64_t>(size < kMost ? size : kMost);
  }

  const Request& request_;
  const PlacementGoal goal_;
  const double mean_tokens_;
  double token_work_ = 0;  // of a mean token
  RankSpans ranks_;
  std::vector<RankLoad> loads_;  // [rank]
  int64_t keys_ = 0;             // that travel
  Random random_;
  double chance_ = 0;  // of the move that is being looked at
  double temperature_ = 0, token_price_ = 0;
  size_t worst_ = 0;  // rank
  double worst_excess_ = 0;
  Edit edit_a_, edit_b_;
  std::vector<Span> before_, after_;  // of change_of_keys()
};

}  // namespace

PlacementState state_of(const Request& request, const std::vector<Spans>& ranks) {
  PlacementState state;
  for (const Spans& spans : ranks) {
    const RankLoad load = load_of(request, spans);
    state.most_work = std::max(state.most_work, load.work);
    state.most_tokens = std::max(state.most_tokens, load.tokens);
    state.keys += load.keys - load.tokens;
  }
  return state;
}

void improve(const Request& request, const PlacementGoal& goal, int64_t moves, std::vector<Spans>* ranks) {
  Search search(request, goal, *ranks);
  search.run(moves);
  *ranks = search.spans();
}

}  // namespace evenspan::plan
