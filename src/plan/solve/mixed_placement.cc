#include "plan/solve/mixed_placement.h"

#include <algorithm>
#include <numeric>

#include "plan/solve/deal.h"

namespace evenspan::plan {
namespace {

// Unevenness that is not worth another cut or another shared document.
constexpr double kTolerance = 5e-4;

// What groups get: documents whole, and shares of cut ones.
struct Share {
  size_t document = 0;
  double part = 0;  // of the document, in (0, 1]
};

double density(const Load& load) { return load.attention / load.tokens; }

class Groups {
 public:
  Groups(const Request& request, int32_t num_groups) : request_(request), num_groups_(num_groups) {
    for (size_t d = 0; d < static_cast<size_t>(request.documents.size()); ++d) {
      const Document& document = request.documents[DocumentId(static_cast<int64_t>(d))];
      attention_.push_back(request.cost.pair_seconds *
                           static_cast<double>(num_pairs(document, Span{0, document.length})));
      loads_.push_back(load_of_part(Share{d, 1}));
      capacity_ += loads_.back();
    }
    capacity_ = 1.0 / num_groups * capacity_;
    by_size_.resize(loads_.size());
    std::iota(by_size_.begin(), by_size_.end(), 0);
    std::stable_sort(by_size_.begin(), by_size_.end(), [this](size_t a, size_t b) {
      return fullness(loads_[a], capacity_) > fullness(loads_[b], capacity_);
    });
  }

  Load load(const Share& share) const { return share.part < 1 ? load_of_part(share) : loads_[share.document]; }

  // [group]
  std::vector<std::vector<Share>> run() {
    size_t num_cut = 0;
    if (num_groups_ > 1) {
      while (num_cut < by_size_.size() && fullness(loads_[by_size_[num_cut]], capacity_) > 1) ++num_cut;
    }
    std::vector<std::vector<Share>> best;
    double least = 0;
    for (size_t more = 0; num_cut + more <= by_size_.size(); more = more == 0 ? 1 : 2 * more) {
      std::vector<std::vector<Share>> shares = divide(num_cut + more);
      const double fullest = unevenness(shares);
      if (best.empty() || fullest < least) {
        best = std::move(shares);
        least = fullest;
      }
      if (least < 1 + kTolerance || num_groups_ == 1 || more > 16) break;
    }
    return best;
  }

 private:
  using Shares = std::vector<std::vector<Share>>;

  // A share has rows as few as a document of its size.
  Load load_of_part(const Share& share) const {
    const Document& document = request_.documents[DocumentId(static_cast<int64_t>(share.document))];
    const double tokens = share.part * static_cast<double>(document.length);
    return {share.part * attention_[share.document] * request_.cost.slowdown(static_cast<int64_t>(tokens)), tokens};
  }

  // The groups' shares when the first `num_cut` documents by size are cut.
  Shares divide(size_t num_cut) {
    std::vector<size_t> cut(by_size_.begin(), by_size_.begin() + static_cast<int64_t>(num_cut));
    const std::vector<size_t> whole(by_size_.begin() + static_cast<int64_t>(num_cut), by_size_.end());
    std::stable_sort(cut.begin(), cut.end(),
                     [this](size_t a, size_t b) { return density(loads_[a]) > density(loads_[b]); });
    Shares shares = fill(cut, whole, expected_of_cut(cut, whole));
    // Again, around what the cut ones turned out to be, without small shares, whose kernels are slow.
    for (int32_t round = 0; round < 2 && !cut.empty(); ++round) {
      std::vector<Load> reserved(static_cast<size_t>(num_groups_));
      Load mean;
      for (size_t g = 0; g < shares.size(); ++g) {
        for (const Share& share : shares[g]) {
          mean += load(share);
          if (share.part < 1 && load(share).attention > kSmallShare * capacity_.attention) reserved[g] += load(share);
        }
      }
      capacity_ = 1.0 / num_groups_ * mean;
      shares = fill(cut, whole, std::move(reserved));
    }
    return shares;
  }

  // Deals the whole documents around what is reserved for cut ones, then pours these.
  Shares fill(const std::vector<size_t>& cut, const std::vector<size_t>& whole, std::vector<Load> bins) const {
    std::vector<Load> items;
    for (const size_t d : whole) items.push_back(loads_[d]);
    const std::vector<int32_t> group_of = deal(items, capacity_, &bins);
    Shares shares(static_cast<size_t>(num_groups_));
    for (size_t i = 0; i < whole.size(); ++i) {
      shares[static_cast<size_t>(group_of[i])].push_back(Share{whole[i], 1});
    }
    for (auto& of_group : shares) sort_by_density(&of_group);
    std::vector<Load> held;  // of whole documents
    for (const auto& of_group : shares) held.push_back(sum_of(of_group));
    even_tokens(cut, &held, &shares);
    const Shares poured = pour(cut, held);
    for (size_t g = 0; g < shares.size(); ++g) {
      shares[g].insert(shares[g].end(), poured[g].begin(), poured[g].end());
    }
    return shares;
  }

  void sort_by_density(std::vector<Share>* shares) const {
    std::stable_sort(shares->begin(), shares->end(), [this](const Share& a, const Share& b) {
      return density(loads_[a.document]) < density(loads_[b.document]);
    });
  }

  Load sum_of(const std::vector<Share>& shares) const {
    Load sum;
    for (const Share& share : shares) sum += load(share);
    return sum;
  }

  // Moves light whole documents from groups that will have many tokens to such that will have few: the fullest gives to
  // the emptiest, the next to the next, and what the cut documents bring is counted anew. `shares` are whole documents,
  // the lightest first.
  void even_tokens(const std::vector<size_t>& cut, std::vector<Load>* held, Shares* shares) const {
    std::vector<size_t> order(held->size());
    std::iota(order.begin(), order.end(), 0);
    for (int32_t round = 0; round < kMostRounds && num_groups_ > 1; ++round) {
      const Shares poured = pour(cut, *held);
      std::vector<double> tokens;
      for (size_t g = 0; g < poured.size(); ++g) tokens.push_back((*held)[g].tokens + sum_of(poured[g]).tokens);
      std::sort(order.begin(), order.end(),
                [&tokens](size_t a, size_t b) { return tokens[a] != tokens[b] ? tokens[a] > tokens[b] : a < b; });
      if (tokens[order.front()] <= capacity_.tokens * (1 + kTolerance)) return;
      bool moved = false;
      for (size_t i = 0; i < order.size() / 2; ++i) {
        const size_t most = order[i], fewest = order[order.size() - 1 - i];
        const double surplus = std::min(tokens[most] - capacity_.tokens, capacity_.tokens - tokens[fewest]);
        if (surplus > 0 && move_lightest(most, fewest, surplus, held, shares)) moved = true;
      }
      if (!moved) return;
    }
  }

  // Moves the lightest documents that together have at most so many tokens.
  bool move_lightest(size_t from, size_t to, double most_tokens, std::vector<Load>* held, Shares* shares) const {
    Load moved;
    std::vector<Share> kept;
    for (const Share& share : (*shares)[from]) {
      const Load& load = loads_[share.document];
      const bool moves = moved.tokens + load.tokens <= most_tokens;
      if (moves) moved += load;
      (moves ? (*shares)[to] : kept).push_back(share);
    }
    if (moved.tokens == 0) return false;
    (*shares)[from] = std::move(kept);
    sort_by_density(&(*shares)[to]);
    (*held)[from] += -1.0 * moved;
    (*held)[to] += moved;
    return true;
  }

  // What the groups will hold of the cut documents, one group after another: of the densest so much that the lightest
  // tokens of the others make up both the mean attention and the mean tokens.
  std::vector<Load> expected_of_cut(const std::vector<size_t>& cut, const std::vector<size_t>& whole) const {
    std::vector<size_t> light = whole;
    std::stable_sort(light.begin(), light.end(),
                     [this](size_t a, size_t b) { return density(loads_[a]) < density(loads_[b]); });
    std::vector<Load> left;  // of the cut ones
    for (const size_t d : cut) left.push_back(loads_[d]);
    std::vector<Load> bins(static_cast<size_t>(num_groups_));
    size_t dense = 0, next = 0;
    double next_part = 1;  // what is left of the next light one
    for (Load& bin : bins) {
      Load room = capacity_;
      // Fill with light tokens and trade: as long as both fit, the densest and the lightest advance together.
      while (dense < left.size() && room.tokens > 0 && room.attention > 0) {
        const Load& heavy = left[dense];
        if (next >= light.size()) {
          const double part = std::min(1.0, 1 / std::max(fullness(heavy, room), 1e-300));
          bin += part * heavy;
          room += -part * heavy;
          left[dense] = (1 - part) * heavy;
          if (part >= 1) ++dense;
          if (part < 1) break;
          continue;
        }
        // h of the heavy one and l of the light one that fill the room's two sides in proportion.
        const Load lean = next_part * loads_[light[next]];
        const double d_heavy = density(heavy), d_lean = density(lean), d_room = room.attention / room.tokens;
        if (d_heavy <= d_room) {
          // Not dense: it lies like the others.
          const double part = std::min(1.0, 1 / std::max(fullness(heavy, room), 1e-300));
          bin += part * heavy;
          room += -part * heavy;
          left[dense] = (1 - part) * heavy;
          if (part < 1) break;
          ++dense;
          continue;
        }
        if (d_lean >= d_room) break;
        // Tokens of heavy per token of light so that together they have the room's density.
        const double ratio = (d_room - d_lean) / (d_heavy - d_room);
        const double steps = std::min({heavy.tokens / ratio, lean.tokens, room.tokens / (1 + ratio)});
        const Load of_heavy = steps * ratio / heavy.tokens * heavy;
        bin += of_heavy;
        room += -1.0 * of_heavy;
        room += -steps / lean.tokens * lean;
        if (room.tokens <= 1e-9 * capacity_.tokens) room.tokens = 0;
        const bool heavy_done = steps * ratio >= heavy.tokens * (1 - 1e-12);
        const bool lean_done = steps >= lean.tokens * (1 - 1e-12);
        left[dense] += -1.0 * of_heavy;
        if (heavy_done) ++dense;
        next_part *= 1 - steps / lean.tokens;
        if (lean_done) {
          ++next;
          next_part = 1;
        }
      }
      if (dense >= left.size()) break;
    }
    return bins;
  }

  // Pours the cut documents, one after another, into what the groups lack of one level of attention, the lowest at
  // which all is poured.
  Shares pour(const std::vector<size_t>& cut, const std::vector<Load>& held) const {
    Shares shares(held.size());
    if (cut.empty()) return shares;
    double low = 0.9 * capacity_.attention, high = 1.1 * capacity_.attention;
    while (pour_up_to(high, cut, held, nullptr) > 0) high *= 2;
    if (pour_up_to(low, cut, held, nullptr) == 0) low = 0;
    for (int32_t i = 0; i < 20; ++i) {
      const double middle = (low + high) / 2;
      (pour_up_to(middle, cut, held, nullptr) > 0 ? low : high) = middle;
    }
    pour_up_to(high, cut, held, &shares);
    return shares;
  }

  // Returns the part of all tokens that finds no room below the level. With `shares`, appends to them.
  double pour_up_to(double level, const std::vector<size_t>& cut, const std::vector<Load>& held, Shares* shares) const {
    size_t g = 0;
    double room = level - held[0].attention;
    const auto next_group = [&] {
      if (++g < held.size()) room = level - held[g].attention;
    };
    for (size_t c = 0; c < cut.size(); ++c) {
      const size_t d = cut[c];
      double left = 1;
      while (left > 0) {
        while (g < held.size() && room < kSmallRoom * capacity_.attention) next_group();
        if (g == held.size()) return left + static_cast<double>(cut.size() - c - 1);
        double part = std::min(left, room / loads_[d].attention);
        for (int32_t i = 0; i < 3; ++i) part = std::min(left, part * room / load(Share{d, part}).attention);
        if (left - part < 1e-6) part = left;
        if (shares != nullptr) (*shares)[g].push_back(Share{d, part});
        left -= part;
        room -= load(Share{d, part}).attention;
        if (left > 0) next_group();
      }
    }
    return 0;
  }

  double unevenness(const Shares& shares) const {
    double fullest = 0;
    for (const auto& of_group : shares) fullest = std::max(fullest, fullness(sum_of(of_group), capacity_));
    return fullest;
  }

  // Of a group's attention: smaller shares are not planned for, smaller rooms not filled.
  static constexpr double kSmallShare = 0.15;
  static constexpr double kSmallRoom = 0.03;
  static constexpr int32_t kMostRounds = 16;

  const Request& request_;
  const int32_t num_groups_;
  std::vector<double> attention_;  // [document], at the best rate
  std::vector<Load> loads_;        // [document], whole
  std::vector<size_t> by_size_;    // documents, largest first
  Load capacity_;                  // of a group: the mean
};

// A document, or a share of one, in a group.
struct Item {
  std::vector<PlacedSpan> spans;
  Load load;
  bool cut = false;
};

// Cuts a document into parts that add up to 1: of each a chunk from its beginning and the mirrored one from its end,
// the first parts outermost; the last part is what is left in the middle. Parts without a token have no span.
std::vector<std::vector<PlacedSpan>> mirrored_chunks(DocumentId id, int64_t length, const std::vector<double>& parts) {
  std::vector<std::vector<PlacedSpan>> chunks;
  int64_t begin = 0;  // of what is left between the chunks
  double before = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    auto& spans = chunks.emplace_back();
    before += parts[i];
    if (i + 1 == parts.size()) {
      spans.push_back(PlacedSpan{id, Span{begin, length - begin}});
    } else {
      const int64_t end = std::min(static_cast<int64_t>(before * static_cast<double>(length) / 2), length / 2);
      spans.push_back(PlacedSpan{id, Span{begin, end}});
      spans.push_back(PlacedSpan{id, Span{length - end, length - begin}});
      begin = end;
    }
    std::erase_if(spans, [](const PlacedSpan& placed) { return placed.span.empty(); });
  }
  return chunks;
}

std::vector<std::vector<Item>> items_of(const Request& request, const Groups& groups,
                                        const std::vector<std::vector<Share>>& shares) {
  std::vector<std::vector<size_t>> groups_of(static_cast<size_t>(request.documents.size()));
  std::vector<std::vector<double>> parts(groups_of.size());
  for (size_t g = 0; g < shares.size(); ++g) {
    for (const Share& share : shares[g]) {
      groups_of[share.document].push_back(g);
      parts[share.document].push_back(share.part);
    }
  }
  std::vector<std::vector<Item>> items(shares.size());
  for (size_t d = 0; d < groups_of.size(); ++d) {
    const DocumentId id(static_cast<int64_t>(d));
    auto chunks = mirrored_chunks(id, request.documents[id].length, parts[d]);
    for (size_t i = 0; i < chunks.size(); ++i) {
      if (chunks[i].empty()) continue;
      items[groups_of[d][i]].push_back(
          Item{std::move(chunks[i]), groups.load(Share{d, parts[d][i]}), parts[d].size() > 1});
    }
  }
  return items;
}

class Members {
 public:
  Members(const Request& request, int32_t num_ranks, std::vector<Item> items)
      : request_(request), num_ranks_(num_ranks), items_(std::move(items)) {
    for (const Item& item : items_) mean_ += item.load;
    mean_ = 1.0 / num_ranks * mean_;
    // Cut ones first, then the most attention.
    std::stable_sort(items_.begin(), items_.end(), [](const Item& a, const Item& b) {
      return a.cut != b.cut ? a.cut : a.load.attention > b.load.attention;
    });
  }

  void run(std::vector<PlacedSpan>* shared, std::vector<PlacedSpan>* homes) {
    size_t num_shared = 0;
    while (num_shared < items_.size() && (items_[num_shared].cut || num_ranks_ == 1)) ++num_shared;
    Dealt best = with(num_shared, 0);
    const size_t num_whole = items_.size() - num_shared;
    for (size_t more = 0; num_ranks_ > 1 && more <= num_whole; more += more < 16 ? 1 : more / 4) {
      for (const size_t num_divided : {0, 1}) {
        if (best.seconds <= even_seconds() * (1 + kTolerance)) break;
        if (more + num_divided == 0 || more + num_divided > num_whole) continue;
        Dealt dealt = with(num_shared + more, num_divided);
        if (dealt.seconds < best.seconds) best = std::move(dealt);
      }
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

  double even_seconds() const { return mean_.attention + request_.cost.token_seconds * mean_.tokens; }

  // Shares the first items, and divides as many of the next, 0 or 1, so that the ranks come out even.
  Dealt with(size_t num_shared, size_t num_divided) const {
    Load shared;
    for (size_t i = 0; i < num_shared; ++i) shared += items_[i].load;
    std::vector<Load> whole;
    Dealt dealt;
    dealt.num_shared = num_shared;
    dealt.first_whole = num_shared + num_divided;
    for (size_t i = dealt.first_whole; i < items_.size(); ++i) whole.push_back(items_[i].load);
    dealt.ranks.assign(static_cast<size_t>(num_ranks_), Load{shared.attention / num_ranks_, 0});
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

  // Pours the document into what the ranks lack of one level of attention.
  void divide(const Item& item, Dealt* dealt) const {
    std::vector<double> held;
    for (const Load& load : dealt->ranks) held.push_back(load.attention);
    std::sort(held.begin(), held.end());
    // Fewer rows a rank, slower kernels: as if all ranks had a share.
    const DocumentId id = item.spans.front().document;
    const auto tokens = static_cast<int64_t>(item.load.tokens);
    const double attention = item.load.attention * request_.cost.slowdown(tokens / num_ranks_) /
                             request_.cost.slowdown(request_.documents[id].length);
    double level = held[0], rest = attention;
    for (size_t i = 1; i <= held.size() && rest > 0; ++i) {
      const double step = i < held.size() ? held[i] - level : rest;
      const double filled = std::min(rest, step * static_cast<double>(i));
      level += filled / static_cast<double>(i);
      rest -= filled;
    }
    for (Load& load : dealt->ranks) {
      dealt->parts.push_back(attention > 0 ? std::max(0.0, level - load.attention) / attention : 1.0 / num_ranks_);
      load += Load{std::max(0.0, level - load.attention), dealt->parts.back() * item.load.tokens};
    }
  }

  // Of the whole model's transfers: of shared tokens queries, keys, values and outputs, to other ranks; of divided ones
  // keys and values, to all. Backward moves about three times as much as forward.
  double transfer_seconds(double shared_tokens, double divided_tokens) const {
    const Level& level = request_.topology.levels[request_.topology.level_between(Rank(0), Rank(num_ranks_ - 1))];
    if (level.bytes_per_second <= 0 || shared_tokens + divided_tokens <= 0) return 0;
    const AttentionShape& shape = request_.shape;
    const double heads = shared_tokens / num_ranks_ * (2.0 * shape.num_heads + 2.0 * shape.num_kv_heads) +
                         divided_tokens * 2.0 * shape.num_kv_heads;
    const double bytes =
        (num_ranks_ - 1.0) / num_ranks_ * heads * shape.head_dim * static_cast<double>(num_bytes(shape.element));
    return 4 * request_.cost.num_layers * (bytes / level.bytes_per_second + 2 * level.latency_seconds);
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
      const auto chunks = mirrored_chunks(id, request_.documents[id].length, dealt.parts);
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
  std::vector<Item> items_;
  Load mean_;  // of a rank
};

}  // namespace

MixedPlacement place_mixed(const Request& request, int32_t ranks_per_group) {
  const int32_t num_groups = request.num_ranks() / ranks_per_group;
  Groups groups(request, num_groups);
  const std::vector<std::vector<Share>> shares = groups.run();
  std::vector<std::vector<Item>> items = items_of(request, groups, shares);
  MixedPlacement placement;
  placement.homes.resize(static_cast<size_t>(request.num_ranks()));
  placement.shared.resize(static_cast<size_t>(num_groups));
  for (size_t g = 0; g < items.size(); ++g) {
    Members(request, ranks_per_group, std::move(items[g]))
        .run(&placement.shared[g], &placement.homes[g * static_cast<size_t>(ranks_per_group)]);
  }
  return placement;
}

}  // namespace evenspan::plan
