#include "plan/solve/group_members.h"

#include <algorithm>

#include "plan/solve/cut_documents.h"
#include "plan/solve/group_shares.h"
#include "plan/solve/head_split.h"

namespace evenspan::plan {
namespace {

constexpr int32_t kPourings = 4;

class Members {
 public:
  Members(const Request& request, int32_t num_ranks, std::vector<GroupItem> items)
      : request_(request), num_ranks_(num_ranks), split_(head_split(request, num_ranks)), items_(std::move(items)) {
    for (const GroupItem& item : items_) mean_ += item.load;
    mean_ = 1.0 / num_ranks * mean_;
    // Cut ones first, then the most attention.
    std::stable_sort(items_.begin(), items_.end(), [](const GroupItem& a, const GroupItem& b) {
      return a.cut != b.cut ? a.cut : a.load.attention > b.load.attention;
    });
  }

  void run(std::vector<PlacedSpan>* shared, std::vector<PlacedSpan>* homes) {
    size_t num_shared = 0;
    while (num_shared < items_.size() && (items_[num_shared].cut || num_ranks_ == 1)) ++num_shared;
    std::vector<Sharing> sharings;  // in the order of preference
    const size_t num_whole = items_.size() - num_shared;
    for (size_t more = 0; num_ranks_ > 1 && more <= num_whole; more += more < 16 ? 1 : more / 4) {
      for (const size_t num_divided : {0, 1}) {
        if (more + num_divided > 0 && more + num_divided <= num_whole) {
          sharings.push_back({num_shared + more, num_divided});
        }
      }
    }
    // The first that comes out even, or else the first of the best. Most cannot come out even, which is known before
    // they are dealt; they are looked at when no other does.
    const double even = even_seconds() * (1 + kUneven);
    Dealt best = with({num_shared, 0});
    size_t number = 0;  // of the best
    std::vector<size_t> left_out;
    for (size_t i = 0; i < sharings.size() && best.seconds > even; ++i) {
      if (least_seconds(sharings[i]) * (1 - 1e-9) > even) {
        left_out.push_back(i);
        continue;
      }
      Dealt dealt = with(sharings[i]);
      if (dealt.seconds >= best.seconds) continue;
      best = std::move(dealt);
      number = i + 1;
    }
    if (best.seconds <= even) left_out.clear();
    for (const size_t i : left_out) {
      Dealt dealt = with(sharings[i]);
      if (dealt.seconds > best.seconds || (dealt.seconds == best.seconds && i + 1 > number)) continue;
      best = std::move(dealt);
      number = i + 1;
    }
    write(best, shared, homes);
  }

 private:
  struct Dealt {
    size_t num_shared = 0;
    std::vector<double> parts;     // [rank] of item num_shared, if that is divided by rows; else empty
    size_t first_whole = 0;        // the items from here on are whole
    std::vector<int32_t> rank_of;  // [item - first_whole]
    std::vector<Load> ranks;       // without the tokens of shared items
    double seconds = 0;            // of the slowest rank, and what sharing costs it
  };

  // Shares the first items, and divides as many of the next, 0 or 1.
  struct Sharing {
    size_t num_shared, num_divided;
  };

  // What a sharing takes at least: its largest whole item on the rank that has least of what is shared, and transfers.
  double least_seconds(const Sharing& sharing) const {
    const auto& [num_shared, num_divided] = sharing;
    Load shared;
    for (size_t i = 0; i < num_shared; ++i) shared += items_[i].load;
    double part = 1;
    for (int32_t r = 0; r < num_ranks_; ++r) part = std::min(part, split_.part(r));
    const size_t first_whole = num_shared + num_divided;
    const double largest = first_whole < items_.size() ? items_[first_whole].load.attention : 0;
    const double divided_tokens = num_divided > 0 ? items_[num_shared].load.tokens : 0;
    return std::max(part * shared.attention + largest,
                    transfer_seconds(shared.tokens, divided_tokens) + shared.attention / num_ranks_) +
           request_.cost.token_seconds * mean_.tokens;
  }

  double even_seconds() const { return mean_.attention + request_.cost.token_seconds * mean_.tokens; }

  // Shares and divides so that the ranks come out even.
  Dealt with(const Sharing& sharing) const {
    const auto& [num_shared, num_divided] = sharing;
    Load shared;
    for (size_t i = 0; i < num_shared; ++i) shared += items_[i].load;
    std::vector<Load> whole;
    Dealt dealt;
    dealt.num_shared = num_shared;
    dealt.first_whole = num_shared + num_divided;
    for (size_t i = dealt.first_whole; i < items_.size(); ++i) whole.push_back(items_[i].load);
    // Where the ranks do not divide the heads, some have more of what is shared, and get less of what is not.
    for (int32_t r = 0; r < num_ranks_; ++r) dealt.ranks.push_back(Load{split_.part(r) * shared.attention, 0});
    dealt.rank_of = deal(whole, mean_, &dealt.ranks);
    double divided_tokens = 0;
    if (num_divided > 0) {
      divide(items_[num_shared], &dealt);
      divided_tokens = items_[num_shared].load.tokens;
    }
    // Shared tokens lie where there is room.
    double attention = 0, tokens = mean_.tokens;
    for (const Load& load : dealt.ranks) {
      attention = std::max(attention, load.attention);
      tokens = std::max(tokens, load.tokens);
    }
    const double local_seconds = attention - shared.attention / num_ranks_;
    dealt.seconds = attention + request_.cost.token_seconds * tokens +
                    std::max(0.0, transfer_seconds(shared.tokens, divided_tokens) - local_seconds);
    return dealt;
  }

  // Pours the document into what the ranks lack of one level of attention. Fewer rows a rank, slower kernels: what a
  // part really costs is known when its chunks are, and then it is poured again.
  void divide(const GroupItem& item, Dealt* dealt) const {
    const DocumentId id = item.spans.front().document;
    std::vector<double> whole_seconds(dealt->ranks.size(), item.load.attention);  // if a rank had all of it
    std::vector<double> attention;
    for (int32_t turn = 0; turn < kPourings; ++turn) {
      dealt->parts = pour(whole_seconds, dealt->ranks);
      const auto chunks = mirrored_chunks(id, request_.documents[id].length, dealt->parts, request_.cost.tile);
      attention.clear();
      for (size_t r = 0; r < chunks.size(); ++r) {
        attention.push_back(chunk_seconds(chunks[r], request_.documents[id].length));
        if (dealt->parts[r] > 0) whole_seconds[r] = attention.back() / dealt->parts[r];
      }
    }
    for (size_t r = 0; r < attention.size(); ++r) {
      dealt->ranks[r] += Load{attention[r], dealt->parts[r] * item.load.tokens};
    }
  }

  // Parts, with the sum 1, that bring the ranks to one level, or leave them above it.
  std::vector<double> pour(const std::vector<double>& whole_seconds, const std::vector<Load>& ranks) const {
    std::vector<double> parts(ranks.size(), 1.0 / num_ranks_);
    if (*std::min_element(whole_seconds.begin(), whole_seconds.end()) <= 0) return parts;
    const auto poured_to = [&](double level) {
      double sum = 0;
      for (size_t r = 0; r < ranks.size(); ++r) {
        parts[r] = std::max(0.0, level - ranks[r].attention) / whole_seconds[r];
        sum += parts[r];
      }
      return sum;
    };
    double low = ranks[0].attention;
    for (const Load& load : ranks) low = std::min(low, load.attention);
    double high = low + *std::max_element(whole_seconds.begin(), whole_seconds.end());
    for (int32_t i = 0; i < 40; ++i) {
      const double middle = (low + high) / 2;
      (poured_to(middle) < 1 ? low : high) = middle;
    }
    const double sum = poured_to(high);
    for (double& part : parts) part /= sum;
    return parts;
  }

  // Attention of a rank to a document of which it has these chunks: to its own keys, and to all others that they see.
  double chunk_seconds(const std::vector<PlacedSpan>& chunks, int64_t length) const {
    std::vector<Span> ranges;
    ranges.reserve(chunks.size());
    for (const PlacedSpan& placed : chunks) ranges.push_back(placed.span);
    for (const Span& others : subtract(Span{0, length}, ranges)) ranges.push_back(others);
    double seconds = 0;
    for (const PlacedSpan& placed : chunks) seconds += chunk_attention_seconds(request_, placed, ranges);
    return seconds;
  }

  // Of the whole model's transfers: of shared tokens queries, keys, values and outputs, to other ranks; of divided ones
  // keys and values, to all. Backward moves gradients of all of them, those of keys and values in the accumulation
  // type.
  double transfer_seconds(double shared_tokens, double divided_tokens) const {
    const Level& level = request_.topology.levels[request_.topology.level_between(Rank(0), Rank(num_ranks_ - 1))];
    if (level.bytes_per_second <= 0 || shared_tokens + divided_tokens <= 0) return 0;
    const AttentionShape& shape = request_.shape;
    const auto element = static_cast<double>(num_bytes(shape.element));
    const double kv_bytes =
        2.0 * shape.num_kv_heads * (element + static_cast<double>(num_bytes(accumulation_type(shape.element))));
    const double bytes =
        shared_tokens / num_ranks_ * (4.0 * shape.num_heads * element + kv_bytes) + divided_tokens * kv_bytes;
    return request_.cost.num_layers *
           ((num_ranks_ - 1.0) / num_ranks_ * bytes * shape.head_dim / level.bytes_per_second +
            8 * level.latency_seconds);
  }

  void write(const Dealt& dealt, std::vector<PlacedSpan>* shared, std::vector<PlacedSpan>* homes) const {
    std::vector<int64_t> tokens(static_cast<size_t>(num_ranks_), 0);
    int64_t to_place = 0;
    for (size_t i = 0; i < items_.size(); ++i) {
      for (const PlacedSpan& placed : items_[i].spans) {
        if (i < dealt.num_shared) {
          shared->push_back(placed);
          to_place += placed.span.size();
          continue;
        }
        if (i < dealt.first_whole) continue;
        const auto rank = static_cast<size_t>(dealt.rank_of[i - dealt.first_whole]);
        homes[rank].push_back(placed);
        tokens[rank] += placed.span.size();
      }
    }
    if (dealt.first_whole > dealt.num_shared) {
      const DocumentId id = items_[dealt.num_shared].spans.front().document;
      const auto chunks = mirrored_chunks(id, request_.documents[id].length, dealt.parts, request_.cost.tile);
      for (size_t r = 0; r < chunks.size(); ++r) {
        for (const PlacedSpan& placed : chunks[r]) {
          homes[r].push_back(placed);
          tokens[r] += placed.span.size();
        }
      }
    }
    // Every rank gets its part of every span, so that what others read of it comes from all ranks alike.
    const std::vector<int64_t> rooms = room(tokens, to_place);
    for (const PlacedSpan& placed : *shared) {
      int64_t before = 0;
      for (size_t r = 0; r < rooms.size(); ++r) {
        const Span part{placed.span.begin + placed.span.size() * before / to_place,
                        placed.span.begin + placed.span.size() * (before + rooms[r]) / to_place};
        if (!part.empty()) homes[r].push_back(PlacedSpan{placed.document, part});
        before += rooms[r];
      }
    }
    std::sort(shared->begin(), shared->end());
  }

  // How many of `to_place` tokens each rank gets, so that the fewest become as many as can be.
  static std::vector<int64_t> room(const std::vector<int64_t>& tokens, int64_t to_place) {
    const auto placed_at = [&](int64_t level) {
      int64_t sum = 0;
      for (const int64_t t : tokens) sum += std::max<int64_t>(0, level - t);
      return sum;
    };
    int64_t low = 0, high = *std::max_element(tokens.begin(), tokens.end()) + to_place;
    while (low < high) {  // the highest level that they fill
      const int64_t middle = low + (high - low + 1) / 2;
      placed_at(middle) <= to_place ? low = middle : high = middle - 1;
    }
    int64_t rest = to_place - placed_at(low);
    std::vector<int64_t> rooms;
    for (const int64_t t : tokens) {
      const int64_t one_more = t <= low && rest > 0 ? 1 : 0;
      rest -= one_more;
      rooms.push_back(std::max<int64_t>(0, low - t) + one_more);
    }
    return rooms;
  }

  const Request& request_;
  const int32_t num_ranks_;
  const HeadSplit split_;
  std::vector<GroupItem> items_;
  Load mean_;  // of a rank
};

}  // namespace

void place_in_group(const Request& request, int32_t num_ranks, std::vector<GroupItem> items,
                    std::vector<PlacedSpan>* shared, std::vector<PlacedSpan>* homes) {
  Members(request, num_ranks, std::move(items)).run(shared, homes);
}

}  // namespace evenspan::plan
