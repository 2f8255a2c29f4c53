#include "batch/pour.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <queue>
#include <utility>

namespace evenspan::batch {
namespace {

// For a document that is whole, and for one that is cut. Ranks are even, so others would do no better.
constexpr size_t kRanksTried = 16;
constexpr size_t kNodesTried = 8;

// How ranks are chosen. Where memory is short, a rank that spends all of its time on tokens of long documents leaves
// room that no rank has time for; `mix` in [0, 1] says how far ranks keep to the portion of a long document beside
// which the documents after it fill time and room together.
struct Way {
  double mix = 0;
  bool is_tight = false;  // a whole document goes where the least time is left that it needs, not the most
};
constexpr Way kQuickWays[] = {{0, false}, {0.5, false}, {1, false}};
constexpr Way kWaysOfFew[] = {{0, false}, {0.5, false}, {1, false}, {0, true}};
constexpr Way kAllWays[] = {{0, false},   {0.25, false}, {0.5, false}, {0.65, false}, {0.8, false},
                            {0.9, false}, {0.95, false}, {1, false},   {0, true}};

std::span<const Way> ways_of(size_t num_documents, Effort effort) {
  if (effort == Effort::thorough) return kAllWays;
  if (num_documents <= kFewDocuments) return kWaysOfFew;
  return kQuickWays;
}

// One try: ranks that have so much time each.
class PouredFilling {
 public:
  PouredFilling(std::span<const int64_t> lengths, const Cost& cost, double seconds, const Way& way)
      : lengths_(lengths),
        cost_(cost),
        seconds_(seconds),
        mix_(way.mix),
        is_tight_(way.is_tight),
        time_(static_cast<size_t>(cost.num_ranks), seconds),
        room_(static_cast<size_t>(cost.num_ranks), cost.capacity_tokens),
        node_time_(static_cast<size_t>((cost.num_ranks + cost.ranks_per_node - 1) / cost.ranks_per_node), 0),
        node_room_(node_time_.size(), 0) {
    for (int32_t rank = 0; rank < cost.num_ranks; ++rank) {
      node_time_[static_cast<size_t>(cost.node_of(Rank(rank)))] += seconds;
      node_room_[static_cast<size_t>(cost.node_of(Rank(rank)))] += cost.capacity_tokens;
      emptiest_.push({score(static_cast<size_t>(rank)), -rank});
    }
  }

  bool add(std::span<const DocumentIndex> documents) {
    double work = 0;
    int64_t tokens = 0;
    for (const DocumentIndex document : documents) {
      work += cost_.work(length_of(document));
      tokens += length_of(document);
    }
    for (const DocumentIndex document : documents) {
      work -= cost_.work(length_of(document));
      tokens -= length_of(document);
      rest_token_seconds_ = tokens > 0 ? work / static_cast<double>(tokens) : 0;
      if (!add_whole(document) && !add_in_node(document) && !add_over_nodes(document)) return false;
    }
    return true;
  }

  Poured result() {
    std::sort(shares_.begin(), shares_.end());
    const double least = *std::min_element(time_.begin(), time_.end());
    return Poured{MicroBatch{std::move(shares_)}, seconds_ - least};
  }

 private:
  // Of a document, on one rank.
  struct Portion {
    Rank rank;
    int64_t tokens = 0;  // that the rank has time and room for
  };

  int64_t length_of(DocumentIndex document) const { return lengths_[static_cast<size_t>(document)]; }

  // To a rank that has time and room enough.
  bool add_whole(DocumentIndex document) {
    const int64_t length = length_of(document);
    const double work = cost_.work(length);
    if (length > cost_.capacity_tokens || work > seconds_) return false;
    return is_tight_ ? add_to_fullest(document, length, work) : add_to_emptiest(document, length, work);
  }

  // Of these ranks, to the one with the least time left.
  bool add_to_fullest(DocumentIndex document, int64_t length, double work) {
    size_t best = time_.size();
    for (size_t rank = 0; rank < time_.size(); ++rank) {
      if (room_[rank] < length || time_[rank] < work) continue;
      if (best == time_.size() || time_[rank] < time_[best]) best = rank;
    }
    if (best == time_.size()) return false;
    take(document, Rank(static_cast<int32_t>(best)), length, work / static_cast<double>(length));
    return true;
  }

  // Of these ranks, to the one with the highest score.
  bool add_to_emptiest(DocumentIndex document, int64_t length, double work) {
    std::vector<std::pair<double, int32_t>> passed;
    bool added = false;
    while (!added && !emptiest_.empty() && passed.size() < kRanksTried) {
      const auto [value, negative] = emptiest_.top();
      emptiest_.pop();
      const auto rank = static_cast<size_t>(-negative);
      if (value != score(rank)) continue;  // the rank has taken more since
      if (room_[rank] < length || time_[rank] < work) {
        passed.push_back({value, negative});
        if (mix_ == 0 && time_[rank] < work) break;  // the others have less
        continue;
      }
      take(document, Rank(-negative), length, work / static_cast<double>(length));
      added = true;
    }
    for (const auto& entry : passed) emptiest_.push(entry);
    return added;
  }

  double score(size_t rank) const {
    return (1 - mix_) * time_[rank] / seconds_ +
           mix_ * static_cast<double>(room_[rank]) / static_cast<double>(cost_.capacity_tokens);
  }

  // Into `out`: what the node's ranks can take of a document whose tokens cost so much, most first.
  void find_portions(size_t node, double token_seconds, std::vector<Portion>* out) const {
    out->clear();
    const int64_t first = static_cast<int64_t>(node) * cost_.ranks_per_node;
    const int64_t last = std::min<int64_t>(first + cost_.ranks_per_node, cost_.num_ranks);
    for (int64_t rank = first; rank < last; ++rank) {
      const auto at = static_cast<size_t>(rank);
      const double by_time = std::min(time_[at] / token_seconds * (1 + 1e-12), static_cast<double>(room_[at]));
      const double beside = (time_[at] - rest_token_seconds_ * static_cast<double>(room_[at])) /
                            std::max(token_seconds - rest_token_seconds_, 1e-9 * token_seconds);
      const double mixed = std::clamp(beside, 0.0, by_time);
      const auto tokens = static_cast<int64_t>(by_time + mix_ * (mixed - by_time));  // rounded down: none is below 0
      if (tokens > 0) out->push_back(Portion{Rank(rank), tokens});
    }
    std::sort(out->begin(), out->end(), [](const Portion& a, const Portion& b) {
      return a.tokens != b.tokens ? a.tokens > b.tokens : a.rank < b.rank;
    });
  }

  // How many of the portions hold the document; 0: all are too few.
  static size_t num_needed(const std::vector<Portion>& portions, int64_t length) {
    for (size_t i = 0; i < portions.size(); ++i) {
      length -= portions[i].tokens;
      if (length <= 0) return i + 1;
    }
    return 0;
  }

  // Those that can take most tokens that cost so much, kNodesTried at most.
  std::vector<size_t> emptiest_nodes(double token_seconds) const {
    std::vector<std::pair<double, int64_t>> nodes;  // tokens, and the number below 0
    nodes.reserve(node_time_.size());
    for (size_t node = 0; node < node_time_.size(); ++node) {
      nodes.push_back({std::min(node_time_[node] / token_seconds, static_cast<double>(node_room_[node])),
                       -static_cast<int64_t>(node)});
    }
    const size_t count = std::min(nodes.size(), kNodesTried);
    std::partial_sort(nodes.begin(), nodes.begin() + static_cast<std::ptrdiff_t>(count), nodes.end(), std::greater<>());
    std::vector<size_t> out;
    out.reserve(count);
    for (size_t i = 0; i < count; ++i) out.push_back(static_cast<size_t>(-nodes[i].second));
    return out;
  }

  // In the node, of those tried, where it needs the fewest ranks, and then leaves least.
  bool add_in_node(DocumentIndex document) {
    const int64_t length = length_of(document);
    const double work = cost_.work(length) / static_cast<double>(length);
    const int32_t most = std::min(cost_.ranks_per_node, cost_.num_ranks);
    const std::vector<size_t> nodes = emptiest_nodes(work);
    std::vector<Portion> some;
    for (int32_t degree = 2; degree < 2 * most; degree *= 2) {
      if (int64_t{std::min(degree, most)} * cost_.capacity_tokens < length) continue;
      const double token_seconds = work + cost_.exchange(std::min(degree, cost_.num_ranks));
      std::vector<Portion> best;
      int64_t best_spare = 0;
      for (const size_t node : nodes) {
        find_portions(node, token_seconds, &some);
        const size_t needed = num_needed(some, length);
        if (needed == 0 || needed > static_cast<size_t>(degree)) continue;
        some.resize(needed);
        int64_t spare = -length;
        for (const Portion& portion : some) spare += portion.tokens;
        if (best.empty() || needed < best.size() || (needed == best.size() && spare < best_spare)) {
          best = some;
          best_spare = spare;
        }
      }
      if (best.empty()) continue;
      take(document, best, token_seconds);
      return true;
    }
    return false;
  }

  // Over as few nodes as hold it, those with most left.
  bool add_over_nodes(DocumentIndex document) {
    const int64_t length = length_of(document);
    const double work = cost_.work(length) / static_cast<double>(length);
    const auto num_nodes = static_cast<int32_t>(node_time_.size());
    for (int32_t nodes = 2; nodes < 2 * num_nodes; nodes *= 2) {
      const int32_t most_nodes = std::min(nodes, num_nodes);
      const double token_seconds = work + cost_.exchange(cost_.paid_degree(1, most_nodes));
      struct Node {
        int64_t tokens = 0;
        std::vector<Portion> portions;
      };
      std::vector<Node> all;
      for (size_t number = 0; number < node_time_.size(); ++number) {
        Node node;
        find_portions(number, token_seconds, &node.portions);
        for (const Portion& portion : node.portions) node.tokens += portion.tokens;
        if (node.tokens > 0) all.push_back(std::move(node));
      }
      std::stable_sort(all.begin(), all.end(), [](const Node& a, const Node& b) { return a.tokens > b.tokens; });
      std::vector<Portion> some;
      int64_t left = length;
      for (size_t i = 0; i < all.size() && i < static_cast<size_t>(most_nodes) && left > 0; ++i) {
        for (const Portion& portion : all[i].portions) {
          if (left <= 0) break;
          left -= portion.tokens;
          some.push_back(portion);
        }
      }
      if (left > 0) continue;
      take(document, some, token_seconds);
      return true;
    }
    return false;
  }

  // All portions but the last whole.
  void take(DocumentIndex document, const std::vector<Portion>& portions, double token_seconds) {
    int64_t left = length_of(document);
    for (const Portion& portion : portions) {
      const int64_t tokens = std::min(portion.tokens, left);
      take(document, portion.rank, tokens, token_seconds);
      left -= tokens;
    }
  }

  void take(DocumentIndex document, Rank rank, int64_t tokens, double token_seconds) {
    const auto at = static_cast<size_t>(rank);
    shares_.push_back(Share{document, rank, tokens});
    room_[at] -= tokens;
    const double seconds = token_seconds * static_cast<double>(tokens);
    time_[at] -= seconds;
    node_time_[static_cast<size_t>(cost_.node_of(rank))] -= seconds;
    node_room_[static_cast<size_t>(cost_.node_of(rank))] -= tokens;
    emptiest_.push({score(at), -rank.value});
  }

  std::span<const int64_t> lengths_;
  const Cost& cost_;
  double seconds_;
  double mix_;
  bool is_tight_;
  double rest_token_seconds_ = 0;   // of a token of the documents that are still to come, in the mean
  std::vector<double> time_;        // [rank], left
  std::vector<int64_t> room_;       // [rank], tokens left
  std::vector<double> node_time_;   // [node], left
  std::vector<int64_t> node_room_;  // [node], tokens left
  std::priority_queue<std::pair<double, int32_t>> emptiest_;  // score and -rank; also of earlier scores
  std::vector<Share> shares_;
};

// In which the documents are added: the longest first. Where they are few, also with any number of the longest ones at
// the end, the longest last: they are cut to what time and memory the others leave.
std::vector<std::vector<DocumentIndex>> orders_of(std::span<const DocumentIndex> documents) {
  std::vector<std::vector<DocumentIndex>> out{{documents.begin(), documents.end()}};
  if (documents.size() > kFewDocuments) return out;
  for (size_t last = 1; last < documents.size(); ++last) {
    std::vector<DocumentIndex>& order = out.emplace_back(out.front());
    std::rotate(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(last), order.end());
    std::reverse(order.end() - static_cast<std::ptrdiff_t>(last), order.end());
  }
  return out;
}

}  // namespace

std::optional<Poured> pour(std::span<const DocumentIndex> documents, std::span<const int64_t> lengths, const Cost& cost,
                           SecondsTried seconds, Effort effort) {
  double least = 0, longest_share = 0;  // a document has a rank with no less than its tokens' mean, rounded up
  double one_by_one = 0;                // all on one rank: who has so much time needs no rank for the sake of time
  int64_t tokens = 0;
  for (const DocumentIndex document : documents) {
    const int64_t length = lengths[static_cast<size_t>(document)];
    tokens += length;
    const int64_t share = (length + cost.num_ranks - 1) / cost.num_ranks;
    longest_share =
        std::max(longest_share, cost.work(length) / static_cast<double>(length) * static_cast<double>(share));
    least += cost.work(length) + cost.exchange(cost.least_degree(length)) * static_cast<double>(length);
    one_by_one += cost.work(length) + cost.exchange(cost.num_ranks) * static_cast<double>(length);
  }
  if (tokens > cost.cluster_tokens()) return std::nullopt;
  least = std::max({least / cost.num_ranks, longest_share, seconds.first});

  std::optional<Poured> best;
  const std::vector<std::vector<DocumentIndex>> orders = orders_of(documents);
  const std::span<const Way> ways = ways_of(documents.size(), effort);
  const auto attempt = [&](double tried) {
    for (const std::vector<DocumentIndex>& order : orders) {
      for (const Way& way : ways) {
        PouredFilling filling(lengths, cost, tried, way);
        if (!filling.add(order)) continue;
        Poured poured = filling.result();
        if (!best || poured.seconds < best->seconds) best = std::move(poured);
        return true;
      }
    }
    return false;
  };
  constexpr int kSmallSteps = 60;
  double above = least, below = least;
  int tries = 0;
  while (!attempt(above)) {
    if (above >= std::min(seconds.most, one_by_one)) return std::nullopt;
    below = above;
    above *= ++tries > kSmallSteps ? 1.5 : 1.05;
  }
  const int halvings = effort == Effort::quick && documents.size() > kFewDocuments ? 3 : 6;
  for (int i = 0; i < halvings && tries > 0; ++i) {
    const double middle = (below + above) / 2;
    (attempt(middle) ? above : below) = middle;
  }
  return best;
}

}  // namespace evenspan::batch
