#include "plan/solve/mixed_placement.h"

#include <algorithm>
#include <numeric>

#include "plan/solve/deal.h"

namespace evenspan::plan {
namespace {

// Unevenness that is not worth another cut or another shared document.
constexpr double kTolerance = 2e-3;

Load load_of(const Request& request, DocumentId id) {
  const Document& document = request.documents[id];
  const auto pairs = static_cast<double>(num_pairs(document, Span{0, document.length}));
  return {request.cost.pair_seconds * pairs * request.cost.slowdown(document.length),
          static_cast<double>(document.length)};
}

double density(const Load& load) { return load.attention / load.tokens; }

// What groups get: documents whole, and shares of cut ones.
struct Share {
  size_t document = 0;
  double part = 0;  // of the document, in (0, 1]
};

class Groups {
 public:
  Groups(const Request& request, int32_t num_groups) : request_(request), num_groups_(num_groups) {
    for (int64_t d = 0; d < request.documents.size(); ++d) {
      loads_.push_back(load_of(request, DocumentId(d)));
      capacity_ += loads_.back();
    }
    capacity_ = 1.0 / num_groups * capacity_;
    by_size_.resize(loads_.size());
    std::iota(by_size_.begin(), by_size_.end(), 0);
    std::stable_sort(by_size_.begin(), by_size_.end(), [this](size_t a, size_t b) {
      return fullness(loads_[a], capacity_) > fullness(loads_[b], capacity_);
    });
  }

  const Load& load(size_t document) const { return loads_[document]; }
  const Load& capacity() const { return capacity_; }

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
  // The fullest group's, when the first `num_cut` documents by size are cut.
  std::vector<std::vector<Share>> divide(size_t num_cut) const {
    std::vector<size_t> cut(by_size_.begin(), by_size_.begin() + static_cast<int64_t>(num_cut));
    const std::vector<size_t> whole(by_size_.begin() + static_cast<int64_t>(num_cut), by_size_.end());
    std::stable_sort(cut.begin(), cut.end(),
                     [this](size_t a, size_t b) { return density(loads_[a]) > density(loads_[b]); });
    std::vector<Load> bins = expected_of_cut(cut, whole);
    std::vector<Load> items;
    for (const size_t d : whole) items.push_back(loads_[d]);
    const std::vector<int32_t> group_of = deal(items, capacity_, &bins);

    std::vector<std::vector<Share>> shares(static_cast<size_t>(num_groups_));
    for (size_t i = 0; i < whole.size(); ++i) {
      shares[static_cast<size_t>(group_of[i])].push_back(Share{whole[i], 1});
    }
    for (auto& of_group : shares) {
      std::stable_sort(of_group.begin(), of_group.end(), [this](const Share& a, const Share& b) {
        return density(loads_[a.document]) < density(loads_[b.document]);
      });
    }
    even_tokens(cut, &shares);
    pour(cut, &shares);
    return shares;
  }

  Load sum_of(const std::vector<Share>& shares) const {
    Load sum;
    for (const Share& share : shares) sum += share.part * loads_[share.document];
    return sum;
  }

  // Moves light whole documents from groups that will have many tokens to such that will have few: what the cut
  // documents bring is counted anew each time. `shares` are whole documents, the lightest first.
  void even_tokens(const std::vector<size_t>& cut, std::vector<std::vector<Share>>* shares) const {
    for (int32_t round = 0; round < 4 * num_groups_ && num_groups_ > 1; ++round) {
      std::vector<std::vector<Share>> poured = *shares;
      pour(cut, &poured);
      std::vector<double> tokens;
      for (const auto& of_group : poured) tokens.push_back(sum_of(of_group).tokens);
      const auto most = static_cast<size_t>(std::max_element(tokens.begin(), tokens.end()) - tokens.begin());
      const auto fewest = static_cast<size_t>(std::min_element(tokens.begin(), tokens.end()) - tokens.begin());
      if (tokens[most] <= capacity_.tokens * (1 + kTolerance)) return;
      const double surplus = std::min(tokens[most] - capacity_.tokens, capacity_.tokens - tokens[fewest]);
      // The lightest ones that together are no more than the surplus.
      std::vector<Share>& from = (*shares)[most];
      double moved = 0;
      std::vector<Share> kept;
      for (const Share& share : from) {
        const double size = loads_[share.document].tokens;
        if (moved + size <= surplus) {
          moved += size;
          (*shares)[fewest].push_back(share);
        } else {
          kept.push_back(share);
        }
      }
      if (moved == 0) return;
      from = std::move(kept);
      std::stable_sort((*shares)[fewest].begin(), (*shares)[fewest].end(), [this](const Share& a, const Share& b) {
        return density(loads_[a.document]) < density(loads_[b.document]);
      });
    }
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

  // Pours the cut documents, one after another, into what the groups lack of the mean attention.
  void pour(const std::vector<size_t>& cut, std::vector<std::vector<Share>>* shares) const {
    if (cut.empty()) return;
    std::vector<Load> bins;
    for (const auto& of_group : *shares) bins.push_back(sum_of(of_group));
    // By attention where there is some, else by tokens.
    double total = 0;
    for (const size_t d : cut) total += loads_[d].attention;
    const bool by_tokens = total <= 0;
    const auto amount = [&](const Load& load) { return by_tokens ? load.tokens : load.attention; };
    std::vector<double> lacks;
    double lacking = 0;
    for (const Load& bin : bins) {
      lacks.push_back(std::max(0.0, amount(capacity_) - amount(bin)));
      lacking += lacks.back();
    }
    double poured = 0;
    for (const size_t d : cut) poured += amount(loads_[d]);
    size_t g = 0;
    for (const size_t d : cut) {
      double left = 1;
      while (left > 1e-9) {
        // What is poured fills what is lacking exactly.
        const double wanted = lacks[g] / lacking * poured / amount(loads_[d]);
        const bool last = g + 1 == lacks.size();
        const double part = last ? left : std::min(left, wanted);
        if (part > 1e-9) (*shares)[g].push_back(Share{d, part});
        left -= part;
        lacks[g] -= part * amount(loads_[d]) / poured * lacking;
        if (!last && left > 1e-9) ++g;
      }
    }
  }

  double unevenness(const std::vector<std::vector<Share>>& shares) const {
    double fullest = 0;
    for (const auto& of_group : shares) {
      fullest = std::max(fullest, fullness(sum_of(of_group), capacity_));
    }
    return fullest;
  }

  const Request& request_;
  const int32_t num_groups_;
  std::vector<Load> loads_;      // [document]
  std::vector<size_t> by_size_;  // documents, largest first
  Load capacity_;                // of a group: the mean
};

// A document, or a share of one, in a group.
struct Item {
  std::vector<PlacedSpan> spans;
  Load load;
  bool cut = false;
};

// The spans of every group: shares become chunks, the first groups outermost.
std::vector<std::vector<Item>> items_of(const Request& request, const Groups& groups,
                                        const std::vector<std::vector<Share>>& shares) {
  const auto num_documents = static_cast<size_t>(request.documents.size());
  std::vector<std::vector<std::pair<size_t, double>>> of_document(num_documents);  // groups and parts
  for (size_t g = 0; g < shares.size(); ++g) {
    for (const Share& share : shares[g]) of_document[share.document].emplace_back(g, share.part);
  }
  std::vector<std::vector<Item>> items(shares.size());
  for (size_t d = 0; d < num_documents; ++d) {
    const DocumentId id(static_cast<int64_t>(d));
    const int64_t length = request.documents[id].length;
    const auto& parts = of_document[d];
    int64_t begin = 0;  // of what is left between the chunks
    double before = 0;
    for (size_t i = 0; i < parts.size(); ++i) {
      const auto& [g, part] = parts[i];
      Item item{{}, part * groups.load(d), parts.size() > 1};
      const Span inner{begin, length - begin};
      before += part;
      if (i + 1 == parts.size()) {
        item.spans.push_back(PlacedSpan{id, inner});
      } else {
        const int64_t end = std::min(static_cast<int64_t>(before * static_cast<double>(length) / 2), length / 2);
        item.spans.push_back(PlacedSpan{id, Span{begin, end}});
        item.spans.push_back(PlacedSpan{id, Span{length - end, length - begin}});
        begin = end;
      }
      std::erase_if(item.spans, [](const PlacedSpan& placed) { return placed.span.empty(); });
      if (!item.spans.empty()) items[g].push_back(std::move(item));
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
    Dealt best = with(num_shared);
    const size_t num_whole = items_.size() - num_shared;
    for (size_t more = 1; num_ranks_ > 1 && more <= num_whole; more += more < 16 ? 1 : more / 4) {
      if (best.seconds <= even_seconds() * (1 + kTolerance)) break;
      Dealt dealt = with(num_shared + more);
      if (dealt.seconds < best.seconds) best = std::move(dealt);
    }
    write(best, shared, homes);
  }

 private:
  struct Dealt {
    size_t num_shared = 0;
    std::vector<int32_t> rank_of;  // [item - num_shared]
    std::vector<Load> ranks;       // without the tokens of shared items
    double seconds = 0;            // of the slowest rank, and what sharing costs it
  };

  double even_seconds() const { return mean_.attention + request_.cost.token_seconds * mean_.tokens; }

  Dealt with(size_t num_shared) const {
    Load shared;
    for (size_t i = 0; i < num_shared; ++i) shared += items_[i].load;
    std::vector<Load> whole;
    for (size_t i = num_shared; i < items_.size(); ++i) whole.push_back(items_[i].load);
    Dealt dealt;
    dealt.num_shared = num_shared;
    dealt.ranks.assign(static_cast<size_t>(num_ranks_), Load{shared.attention / num_ranks_, 0});
    dealt.rank_of = deal(whole, mean_, &dealt.ranks);
    // Shared tokens lie where there is room.
    double attention = 0, tokens = mean_.tokens;
    for (const Load& load : dealt.ranks) {
      attention = std::max(attention, load.attention);
      tokens = std::max(tokens, load.tokens);
    }
    const double local_seconds = attention - shared.attention / num_ranks_;
    dealt.seconds = attention + request_.cost.token_seconds * tokens +
                    std::max(0.0, transfer_seconds(shared.tokens) - local_seconds);
    return dealt;
  }

  // Of the whole model's all-to-alls: queries, keys, values and outputs once forward; backward moves about as much
  // three times.
  double transfer_seconds(double tokens) const {
    const Level& level = request_.topology.levels.front();
    if (level.bytes_per_second <= 0) return 0;
    const AttentionShape& shape = request_.shape;
    const double bytes = tokens / num_ranks_ * (num_ranks_ - 1.0) / num_ranks_ *
                         (2.0 * shape.num_heads + 2.0 * shape.num_kv_heads) * shape.head_dim *
                         static_cast<double>(num_bytes(shape.element));
    return 4 * request_.cost.num_layers * (bytes / level.bytes_per_second + 2 * level.latency_seconds);
  }

  void write(const Dealt& dealt, std::vector<PlacedSpan>* shared, std::vector<PlacedSpan>* homes) const {
    std::vector<int64_t> tokens(static_cast<size_t>(num_ranks_), 0);
    int64_t total = 0;
    for (size_t i = 0; i < items_.size(); ++i) {
      for (const PlacedSpan& placed : items_[i].spans) {
        total += placed.span.size();
        if (i < dealt.num_shared) {
          shared->push_back(placed);
          continue;
        }
        const auto rank = static_cast<size_t>(dealt.rank_of[i - dealt.num_shared]);
        homes[rank].push_back(placed);
        tokens[rank] += placed.span.size();
      }
    }
    std::sort(shared->begin(), shared->end());
    int64_t to_place = 0;
    for (const PlacedSpan& placed : *shared) to_place += placed.span.size();
    const std::vector<int64_t> rooms = room(tokens, to_place);
    size_t rank = 0;
    int64_t left = rooms[0];
    for (PlacedSpan rest : *shared) {
      while (!rest.span.empty()) {
        while (left == 0) left = rooms[++rank];
        const int64_t size = std::min(left, rest.span.size());
        homes[rank].push_back(PlacedSpan{rest.document, Span{rest.span.begin, rest.span.begin + size}});
        rest.span.begin += size;
        left -= size;
      }
    }
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
