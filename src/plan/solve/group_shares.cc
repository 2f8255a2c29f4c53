#include "plan/solve/group_shares.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "plan/solve/cut_documents.h"

namespace evenspan::plan {
namespace {

double density(const Load& load) { return load.attention / load.tokens; }

class Groups {
 public:
  Groups(const Request& request, int32_t num_groups) : request_(request), num_groups_(num_groups) {
    for (size_t d = 0; d < static_cast<size_t>(request.documents.size()); ++d) {
      loads_.push_back(share_load(request, Fraction{d, 1}));
      densities_.push_back(density(loads_.back()));
      capacity_ += loads_.back();
    }
    capacity_ = 1.0 / num_groups * capacity_;
    by_size_.resize(loads_.size());
    std::iota(by_size_.begin(), by_size_.end(), 0);
    std::stable_sort(by_size_.begin(), by_size_.end(), [this](size_t a, size_t b) {
      return fullness(loads_[a], capacity_) > fullness(loads_[b], capacity_);
    });
  }

  // [group]
  std::vector<std::vector<Fraction>> run() {
    size_t num_cut = 0;
    if (num_groups_ > 1) {
      while (num_cut < by_size_.size() && fullness(loads_[by_size_[num_cut]], capacity_) > 1) ++num_cut;
    }
    std::vector<std::vector<Fraction>> best;
    double least = 0;
    for (size_t more = 0; num_cut + more <= by_size_.size(); more = more == 0 ? 1 : 2 * more) {
      std::vector<std::vector<Fraction>> shares = divide(num_cut + more);
      const double fullest = unevenness(shares);
      if (best.empty() || fullest < least) {
        best = std::move(shares);
        least = fullest;
      }
      if (least < 1 + kUneven || num_groups_ == 1 || more > 16) break;
    }
    correct(&best);
    return best;
  }

 private:
  using Shares = std::vector<std::vector<Fraction>>;

  Load load(const Fraction& share) const {
    return share.part < 1 ? share_load(request_, share) : loads_[share.document];
  }

  // The groups' shares when the first `num_cut` documents by size are cut.
  Shares divide(size_t num_cut) {
    std::vector<size_t> cut(by_size_.begin(), by_size_.begin() + static_cast<int64_t>(num_cut));
    const std::vector<size_t> whole(by_size_.begin() + static_cast<int64_t>(num_cut), by_size_.end());
    std::stable_sort(cut.begin(), cut.end(), [this](size_t a, size_t b) { return densities_[a] > densities_[b]; });
    Shares shares = fill(cut, whole, expected_of_cut(cut, whole));
    // Again, around what the cut ones turned out to be, without small shares, whose kernels are slow.
    for (int32_t turn = 0; turn < 2 && !cut.empty(); ++turn) {
      std::vector<Load> reserved(static_cast<size_t>(num_groups_));
      Load mean;
      for (size_t g = 0; g < shares.size(); ++g) {
        for (const Fraction& share : shares[g]) {
          mean += load(share);
          if (share.part < 1 && load(share).attention > kSmallShare * capacity_.attention) reserved[g] += load(share);
        }
      }
      capacity_ = 1.0 / num_groups_ * mean;
      shares = fill(cut, whole, std::move(reserved));
    }
    return shares;
  }

  // Pours the cut documents again around what the tiles of their parts cost more than their pairs, and keeps what comes
  // out most even.
  void correct(Shares* shares) const {
    Shares whole(shares->size()), parts(shares->size());
    std::vector<size_t> cut;
    for (size_t g = 0; g < shares->size(); ++g) {
      for (const Fraction& share : (*shares)[g]) {
        (share.part == 1 ? whole : parts)[g].push_back(share);
        if (share.part < 1 && std::find(cut.begin(), cut.end(), share.document) == cut.end()) {
          cut.push_back(share.document);
        }
      }
    }
    if (cut.empty() || request_.cost.pair_seconds == 0) return;
    std::vector<Load> held;
    for (const auto& of_group : whole) held.push_back(sum_of(of_group));
    Shares best;
    double least = 0;
    for (int32_t turn = 0;; ++turn) {
      const std::vector<double> priced = priced_attention(parts);
      std::vector<Load> corrected = held;
      double attention = 0, tokens = 0;
      for (size_t g = 0; g < held.size(); ++g) {
        Load estimate = held[g];
        for (const Fraction& share : parts[g]) estimate += load(share);
        corrected[g].attention += priced[g] - (estimate.attention - held[g].attention);
        attention = std::max(attention, held[g].attention + priced[g]);
        tokens = std::max(tokens, estimate.tokens);
      }
      const double seconds = attention + request_.cost.token_seconds * tokens;
      if (best.empty() || seconds < least) {
        least = seconds;
        best = parts;
      }
      if (turn == kCorrections) break;
      parts = pour(cut, corrected);
    }
    for (size_t g = 0; g < whole.size(); ++g) {
      (*shares)[g] = std::move(whole[g]);
      (*shares)[g].insert((*shares)[g].end(), best[g].begin(), best[g].end());
    }
  }

  // Of each group's parts of cut documents.
  std::vector<double> priced_attention(const Shares& parts) const {
    std::vector<std::vector<PlacedSpan>> spans(parts.size());
    for (const auto& [document, of_document] : parts_by_document(parts)) {
      if (of_document.groups.size() == 1) continue;
      const DocumentId id(static_cast<int64_t>(document));
      const int64_t length = request_.documents[id].length;
      const auto chunks = mirrored_chunks(id, length, of_document.parts, request_.cost.tile);
      for (size_t i = 0; i < chunks.size(); ++i) {
        auto& of_group = spans[of_document.groups[i]];
        of_group.insert(of_group.end(), chunks[i].begin(), chunks[i].end());
      }
    }
    const RemoteKeys remote(request_, spans);
    std::vector<double> seconds;
    seconds.reserve(parts.size());
    for (size_t g = 0; g < parts.size(); ++g) seconds.push_back(remote.attention_seconds(g));
    return seconds;
  }

  // Deals the whole documents around what is reserved for cut ones, then pours these.
  Shares fill(const std::vector<size_t>& cut, const std::vector<size_t>& whole, std::vector<Load> bins) const {
    std::vector<Load> items;
    items.reserve(whole.size());
    for (const size_t d : whole) items.push_back(loads_[d]);
    const std::vector<int32_t> group_of = deal(items, capacity_, &bins);
    Shares shares(static_cast<size_t>(num_groups_));
    for (size_t i = 0; i < whole.size(); ++i) {
      shares[static_cast<size_t>(group_of[i])].push_back(Fraction{whole[i], 1});
    }
    for (auto& of_group : shares) {
      std::stable_sort(of_group.begin(), of_group.end(),
                       [this](const Fraction& a, const Fraction& b) { return lighter(a, b); });
    }
    std::vector<Load> held;  // of whole documents
    for (const auto& of_group : shares) held.push_back(sum_of(of_group));
    even_tokens(cut, &held, &shares);
    const Shares poured = pour(cut, held);
    for (size_t g = 0; g < shares.size(); ++g) {
      shares[g].insert(shares[g].end(), poured[g].begin(), poured[g].end());
    }
    return shares;
  }

  bool lighter(const Fraction& a, const Fraction& b) const { return densities_[a.document] < densities_[b.document]; }

  Load sum_of(const std::vector<Fraction>& shares) const {
    Load sum;
    for (const Fraction& share : shares) sum += load(share);
    return sum;
  }

  // Moves light whole documents from groups that will have many tokens to such that will have few: the fullest gives to
  // the emptiest, the next to the next, and what the cut documents bring is counted anew. `shares` are whole documents,
  // the lightest first.
  void even_tokens(const std::vector<size_t>& cut, std::vector<Load>* held, Shares* shares) const {
    std::vector<size_t> order(held->size());
    std::iota(order.begin(), order.end(), 0);
    for (int32_t turn = 0; turn < kMostTurns && num_groups_ > 1; ++turn) {
      const Shares poured = pour(cut, *held);
      std::vector<double> tokens;
      tokens.reserve(poured.size());
      for (size_t g = 0; g < poured.size(); ++g) tokens.push_back((*held)[g].tokens + sum_of(poured[g]).tokens);
      std::sort(order.begin(), order.end(),
                [&tokens](size_t a, size_t b) { return tokens[a] != tokens[b] ? tokens[a] > tokens[b] : a < b; });
      if (tokens[order.front()] <= capacity_.tokens * (1 + kUneven)) return;
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
    std::vector<Fraction> kept;
    const auto num_before = static_cast<int64_t>((*shares)[to].size());
    for (const Fraction& share : (*shares)[from]) {
      const Load& load = loads_[share.document];
      const bool moves = moved.tokens + load.tokens <= most_tokens;
      if (moves) moved += load;
      (moves ? (*shares)[to] : kept).push_back(share);
    }
    if (moved.tokens == 0) return false;
    (*shares)[from] = std::move(kept);
    auto& receiving = (*shares)[to];
    std::inplace_merge(receiving.begin(), receiving.begin() + num_before, receiving.end(),
                       [this](const Fraction& a, const Fraction& b) { return lighter(a, b); });
    (*held)[from] += -1.0 * moved;
    (*held)[to] += moved;
    return true;
  }

  // What the groups will hold of the cut documents, one group after another: of the densest so much that the lightest
  // tokens of the others make up both the mean attention and the mean tokens.
  std::vector<Load> expected_of_cut(const std::vector<size_t>& cut, const std::vector<size_t>& whole) const {
    std::vector<size_t> by_density = whole;
    std::stable_sort(by_density.begin(), by_density.end(),
                     [this](size_t a, size_t b) { return densities_[a] < densities_[b]; });
    // What is left of the cut ones, and of the others, the next one last.
    std::vector<Load> dense, light;
    for (auto d = cut.rbegin(); d != cut.rend(); ++d) dense.push_back(loads_[*d]);
    for (auto d = by_density.rbegin(); d != by_density.rend(); ++d) light.push_back(loads_[*d]);
    std::vector<Load> bins(static_cast<size_t>(num_groups_));
    for (Load& bin : bins) {
      Load room = capacity_;
      const auto has_room = [&] {
        return room.tokens > 1e-9 * capacity_.tokens && room.attention > 1e-9 * capacity_.attention;
      };
      while (!dense.empty() && has_room()) {
        const double wanted = density(room), heavy = density(dense.back());
        // Tokens of the light one for each of the dense one, so that together they are as dense as the room.
        double lean = 0;
        if (heavy > wanted && !light.empty()) {
          if (density(light.back()) >= wanted) break;
          lean = (heavy - wanted) / (wanted - density(light.back()));
        }
        double tokens = std::min({dense.back().tokens, room.tokens / (1 + lean), room.attention / heavy});
        if (lean > 0) tokens = std::min(tokens, light.back().tokens / lean);
        const Load taken = tokens / dense.back().tokens * dense.back();
        bin += taken;
        room += -1.0 * taken;
        take(tokens, &dense);
        if (lean == 0) continue;
        room += -tokens * lean / light.back().tokens * light.back();
        take(tokens * lean, &light);
      }
    }
    return bins;
  }

  // Takes tokens of the last load; what is left of it stays if that is more than rounding.
  static void take(double tokens, std::vector<Load>* loads) {
    const double left = 1 - tokens / loads->back().tokens;
    if (left > 1e-9) {
      loads->back() = left * loads->back();
    } else {
      loads->pop_back();
    }
  }

  // Pours the cut documents, one after another, into what the groups lack of one level of attention, the lowest at
  // which all is poured: found by regula falsi (Illinois).
  Shares pour(const std::vector<size_t>& cut, const std::vector<Load>& held) const {
    Shares shares(held.size());
    if (cut.empty()) return shares;
    double low = 0.9 * capacity_.attention, high = 1.1 * capacity_.attention;
    double above_low = poured_up_to(low, cut, held, nullptr), above_high = poured_up_to(high, cut, held, nullptr);
    while (above_high > 0) {
      low = high;
      above_low = above_high;
      high *= 2;
      above_high = poured_up_to(high, cut, held, nullptr);
    }
    if (above_low <= 0) {
      low = 0;
      above_low = poured_up_to(low, cut, held, nullptr);
    }
    const double close = 1e-6 * capacity_.attention;
    int32_t last_side = 0;
    for (int32_t i = 0; i < kMostLevels && high - low > close && above_high < -close; ++i) {
      const double level = (low * above_high - high * above_low) / (above_high - above_low);
      const double above = poured_up_to(level, cut, held, nullptr);
      const int32_t side = above > 0 ? -1 : 1;
      if (side < 0) {
        low = level;
        above_low = above;
        if (side == last_side) above_high /= 2;
      } else {
        high = level;
        above_high = above;
        if (side == last_side) above_low /= 2;
      }
      last_side = side;
    }
    poured_up_to(high, cut, held, &shares);
    return shares;
  }

  // Returns the attention that finds no room below the level or, negative, the room that is left. With `shares`,
  // appends to them.
  double poured_up_to(double level, const std::vector<size_t>& cut, const std::vector<Load>& held,
                      Shares* shares) const {
    size_t g = 0;
    double room = level - held[0].attention;
    const auto find_room = [&] {
      while (room < kSmallRoom * capacity_.attention && ++g < held.size()) room = level - held[g].attention;
      return g < held.size();
    };
    for (size_t c = 0; c < cut.size(); ++c) {
      const Load& whole = loads_[cut[c]];
      double left = 1;
      while (left > 0) {
        if (!find_room()) {
          double above = left * whole.attention;
          while (++c < cut.size()) above += loads_[cut[c]].attention;
          return above;
        }
        Fraction share{cut[c], std::min(left, room / whole.attention)};
        double attention = load(share).attention;
        for (int32_t i = 0; i < 3 && (attention > room || share.part < left); ++i) {
          share.part = std::min(left, share.part * room / attention);
          attention = load(share).attention;
          if (std::abs(attention - room) < 1e-6 * capacity_.attention) break;
        }
        if (left - share.part < 1e-6) share.part = left;
        if (shares != nullptr) (*shares)[g].push_back(share);
        left -= share.part;
        room = left > 0 ? 0 : room - attention;  // what is left of a document goes into the next group
      }
    }
    double room_left = 0;
    while (find_room()) {
      room_left += room;
      room = 0;
    }
    return -room_left;
  }

  double unevenness(const Shares& shares) const {
    double fullest = 0;
    for (const auto& of_group : shares) fullest = std::max(fullest, fullness(sum_of(of_group), capacity_));
    return fullest;
  }

  // Of a group's attention: smaller shares are not planned for, smaller rooms not filled.
  static constexpr double kSmallShare = 0.15;
  static constexpr double kSmallRoom = 0.03;
  static constexpr int32_t kMostTurns = 16;
  static constexpr int32_t kMostLevels = 20;
  static constexpr int32_t kCorrections = 3;

  const Request& request_;
  const int32_t num_groups_;
  std::vector<Load> loads_;        // [document], whole
  std::vector<double> densities_;  // [document]
  std::vector<size_t> by_size_;    // documents, largest first
  Load capacity_;                  // of a group: the mean
};

}  // namespace

Load share_load(const Request& request, const Fraction& share) {
  const Document& document = request.documents[DocumentId(static_cast<int64_t>(share.document))];
  const double tokens = share.part * static_cast<double>(document.length);
  if (request.cost.pair_seconds == 0) return {request.cost.token_seconds * tokens, tokens};
  const auto pairs = static_cast<double>(num_pairs(document, Span{0, document.length}));
  const double slowdown = request.cost.slowdown(static_cast<int64_t>(tokens));
  return {request.cost.pair_seconds * share.part * pairs * slowdown, tokens};
}

std::map<size_t, DocumentParts> parts_by_document(const std::vector<std::vector<Fraction>>& shares) {
  std::map<size_t, DocumentParts> by_document;
  for (size_t g = 0; g < shares.size(); ++g) {
    for (const Fraction& share : shares[g]) {
      by_document[share.document].groups.push_back(g);
      by_document[share.document].parts.push_back(share.part);
    }
  }
  return by_document;
}

std::vector<std::vector<Fraction>> share_among_groups(const Request& request, int32_t num_groups) {
  return Groups(request, num_groups).run();
}

}  // namespace evenspan::plan
