#include "plan/relays.h"

#include <algorithm>
#include <map>
#include <set>
#include <span>
#include <tuple>
#include <unordered_map>

#include "plan/sorting.h"

namespace evenspan::plan {
namespace {

// Rows of a document's keys that a rank of a node needs from another node, with the round that reads them first.
struct Wanted {
  int32_t node;
  DocumentId document;
  HeadRange heads;
  Span rows;
  Rank rank;
  int32_t round;
  bool same_keys(const Wanted& other) const {
    return node == other.node && document == other.document && heads == other.heads;
  }
  friend auto operator<=>(const Wanted&, const Wanted&) = default;
};

// Keys and values of a document and heads on a rank.
struct Operands {
  Rank rank;
  DocumentId document;
  HeadRange heads;
  friend bool operator==(const Operands&, const Operands&) = default;
};

struct OperandsHash {
  size_t operator()(const Operands& of) const {
    const auto heads = static_cast<uint64_t>(of.heads.begin) << 16 ^ static_cast<uint64_t>(of.heads.end);
    const auto place = static_cast<uint64_t>(of.rank.value) << 40 ^ static_cast<uint64_t>(of.document.value) << 8;
    return static_cast<size_t>((place ^ heads) * 0x9e3779b97f4a7c15ULL >> 17);
  }
};

template <class T>
using ByOperands = std::unordered_map<Operands, T, OperandsHash>;

Operands receiver_of(const Relay& relay) { return {relay.to, relay.document, relay.heads}; }
Operands receiver_of(const Move& move) { return {move.to, move.document, move.heads}; }

class Relaying {
 public:
  explicit Relaying(Plan* plan)
      : plan_(*plan), request_(plan->request), node_size_(request_.topology.ranks_per_node()) {}

  std::vector<Relay> run() {
    passed_on_.assign(static_cast<size_t>(request_.num_ranks()), 0);
    const double before = transfer_seconds(most_bytes(Order::together)), attention = attention_seconds();
    if (before <= attention) return {};
    const std::vector<std::span<const Wanted>> wanted = wanted_twice();
    if (wanted.empty()) return {};
    find_unfit();
    for (const auto& overlapping : wanted) choose(overlapping);
    if (relays_.empty()) return {};
    part_tasks();
    const Level& level = request_.topology.levels.back();
    const double rounds = (num_rounds_ - plan_.num_rounds) * (request_.cost.round_seconds + 2 * level.latency_seconds);
    const double after = transfer_seconds(most_bytes(Order::one_by_one));
    if (std::max(attention, after) + rounds >= before) return {};
    plan_.tasks = std::move(tasks_);
    plan_.num_rounds = num_rounds_;
    return std::move(relays_);
  }

 private:
  int32_t node_of(Rank rank) const { return rank / node_size_; }
  Operands operands_of(const Task& task) const {
    return {task.rank, task.tile.document, request_.shape.kv_heads(task.tile.heads)};
  }

  // Rows that tiles read which cannot be parted, or that tiles of several rounds read.
  void find_unfit() {
    ByOperands<std::vector<std::pair<Span, int32_t>>> first_rounds;
    for (const Need& need : plan_.needs) {
      if (need.move.operand != Operand::key_value) continue;
      first_rounds[receiver_of(need.move)].emplace_back(need.move.rows, need.move.round);
    }
    for (const Task& task : plan_.tasks) {
      const auto at = first_rounds.find(operands_of(task));
      if (at == first_rounds.end()) continue;
      for (const auto& [rows, round] : at->second) {
        if (!rows.overlaps(task.tile.keys)) continue;
        if (task.tile.kind != TileKind::full || task.round != round) unfit_[at->first].push_back(rows);
      }
    }
    for (auto& [operands, rows] : unfit_) rows = union_of(std::move(rows));
  }

  bool crosses_nodes(const Move& move) const {
    return move.operand == Operand::key_value && node_of(move.from) != node_of(move.to);
  }

  // What ranks of a node want of the same keys, where it overlaps.
  std::vector<std::span<const Wanted>> wanted_twice() {
    std::vector<std::span<const Wanted>> twice;
    if (each_head_has_its_rank()) return twice;
    for (const Need& need : plan_.needs) {
      const Move& move = need.move;
      if (!crosses_nodes(move)) continue;
      wanted_.push_back({node_of(move.to), move.document, move.heads, move.rows, move.to, move.round});
    }
    std::sort(wanted_.begin(), wanted_.end());
    for (size_t first = 0, last = 0; first < wanted_.size(); first = last) {
      int64_t end = wanted_[first].rows.end;
      for (last = first + 1; last < wanted_.size(); ++last) {
        if (!wanted_[last].same_keys(wanted_[first]) || wanted_[last].rows.begin >= end) break;
        end = std::max(end, wanted_[last].rows.end);
      }
      if (last - first > 1) twice.push_back(std::span(wanted_).subspan(first, last - first));
    }
    return twice;
  }

  // Whether in every node one rank alone wants keys of a head, as where groups split heads: it wants nothing twice.
  bool each_head_has_its_rank() const {
    const auto num_heads = static_cast<size_t>(request_.shape.num_kv_heads);
    std::vector<Rank> ranks((passed_on_.size() / static_cast<size_t>(node_size_) + 1) * num_heads, Rank(-1));
    for (const Need& need : plan_.needs) {
      const Move& move = need.move;
      if (!crosses_nodes(move)) continue;
      for (int32_t head = move.heads.begin; head < move.heads.end; ++head) {
        Rank& rank = ranks[static_cast<size_t>(node_of(move.to)) * num_heads + static_cast<size_t>(head)];
        if (rank != Rank(-1) && rank != move.to) return false;
        rank = move.to;
      }
    }
    return true;
  }

  void choose(std::span<const Wanted> overlapping) {
    std::vector<int64_t> borders;
    for (const Wanted& one : overlapping) {
      borders.push_back(one.rows.begin);
      borders.push_back(one.rows.end);
    }
    std::sort(borders.begin(), borders.end());
    borders.erase(std::unique(borders.begin(), borders.end()), borders.end());
    for (size_t i = 0; i + 1 < borders.size(); ++i) choose(overlapping, Span{borders[i], borders[i + 1]});
  }

  // For rows that are wanted as a whole or not at all.
  void choose(std::span<const Wanted> overlapping, Span rows) {
    std::vector<Wanted> wanted;
    for (const Wanted& one : overlapping) {
      if (one.rows.contains(rows)) wanted.push_back(one);
    }
    if (wanted.size() < 2) return;
    const DocumentId document = wanted.front().document;
    const HeadRange heads = wanted.front().heads;
    std::sort(wanted.begin(), wanted.end(), [this](const Wanted& a, const Wanted& b) {
      return std::tuple(a.round, passed_on(a.rank), a.rank) < std::tuple(b.round, passed_on(b.rank), b.rank);
    });
    std::vector<std::pair<Rank, int32_t>> holders;  // and the round in which they get the rows, of twice as many
    for (const Wanted& one : wanted) {
      int32_t arrival = 2 * one.round;
      const std::pair<Rank, int32_t>* via = nullptr;
      for (const auto& holder : holders) {
        if (holder.second >= arrival) continue;
        if (via == nullptr || passed_on(holder.first) < passed_on(via->first)) via = &holder;
      }
      const bool waits = via == nullptr && !holders.empty() && fits(Operands{one.rank, document, heads}, rows);
      if (waits) {
        via = &holders.front();
        ++arrival;
      }
      if (via != nullptr) {
        passed_on(via->first) += rows.size();
        relays_.push_back(Relay{via->first, one.rank, document, heads, rows, waits});
      }
      holders.emplace_back(one.rank, arrival);
    }
  }

  bool fits(const Operands& operands, Span rows) const {
    const auto unfit = unfit_.find(operands);
    return unfit == unfit_.end() || subtract(rows, unfit->second) == std::vector<Span>{rows};
  }

  // Writes the tasks that the relays make.
  void part_tasks() {
    ByOperands<std::vector<Span>> passed;
    for (const Relay& relay : relays_) {
      if (relay.waits) passed[receiver_of(relay)].push_back(relay.rows);
    }
    for (auto& [operands, rows] : passed) rows = union_of(std::move(rows));
    for (const Task& task : plan_.tasks) {
      const auto at = passed.find(operands_of(task));
      const std::vector<Span> none;
      const std::vector<Span> direct = subtract(task.tile.keys, at == passed.end() ? none : at->second);
      if (direct.size() == 1 && direct[0] == task.tile.keys) {
        tasks_.push_back(Task{task.rank, 2 * task.round, task.tile});
        continue;
      }
      const auto add = [&](const Span& keys, int32_t round) {
        Tile tile = task.tile;
        tile.keys = keys;
        tasks_.push_back(Task{task.rank, round, tile});
      };
      for (const Span& keys : direct) add(keys, 2 * task.round);
      for (const Span& rows : at->second) {
        const Span keys = rows.intersect(task.tile.keys);
        if (!keys.empty()) add(keys, 2 * task.round + 1);
      }
    }
    std::set<int32_t> used;
    for (const Task& task : tasks_) used.insert(task.round);
    for (Task& task : tasks_) task.round = static_cast<int32_t>(std::distance(used.begin(), used.find(task.round)));
    num_rounds_ = static_cast<int32_t>(used.size());
    std::stable_sort(tasks_.begin(), tasks_.end(), [](const Task& a, const Task& b) {
      return std::tie(a.rank, a.round) < std::tie(b.rank, b.round);
    });
  }

  // Bytes of one layer's forward that travel between nodes, with the relays so far: the most that a rank sends or
  // receives, of all rounds together, which start at once without relays, or of one round after another.
  enum class Order : uint8_t { together, one_by_one };
  int64_t most_bytes(Order order) const {
    ByOperands<std::vector<Span>> passed;
    for (const Relay& relay : relays_) passed[receiver_of(relay)].push_back(relay.rows);
    const size_t num_ranks = passed_on_.size();
    std::map<int32_t, std::vector<int64_t>> by_round;  // [2 * rank] sent, [2 * rank + 1] received
    for (const Need& need : plan_.needs) {
      const Move& move = need.move;
      if (node_of(move.from) == node_of(move.to)) continue;
      int64_t left = payload_bytes(move, request_.shape);
      const auto at = passed.find(receiver_of(move));
      if (at != passed.end() && move.operand == Operand::key_value) {
        const int64_t row_bytes = left / move.rows.size();
        for (const Span& saved : at->second) left -= row_bytes * saved.intersect(move.rows).size();
      }
      auto& bytes = by_round[order == Order::together ? 0 : move.round];
      bytes.resize(2 * num_ranks);
      bytes[2 * static_cast<size_t>(move.from.value)] += left;
      bytes[2 * static_cast<size_t>(move.to.value) + 1] += left;
    }
    int64_t sum = 0;
    for (const auto& [round, bytes] : by_round) sum += *std::max_element(bytes.begin(), bytes.end());
    return sum;
  }

  double transfer_seconds(int64_t bytes) const {
    return static_cast<double>(bytes) / request_.topology.levels.back().bytes_per_second;
  }

  // Of the rank with most, in one layer's forward: backward has 2.5 times as many products.
  double attention_seconds() const {
    const std::vector<double> pairs = pairs_by_rank(plan_);
    return request_.cost.pair_seconds * *std::max_element(pairs.begin(), pairs.end()) /
           (3.5 * request_.cost.num_layers);
  }

  int64_t& passed_on(Rank rank) { return passed_on_[static_cast<size_t>(rank.value)]; }

  Plan& plan_;
  const Request& request_;
  const int32_t node_size_;
  ByOperands<std::vector<Span>> unfit_;
  std::vector<Wanted> wanted_;
  std::vector<int64_t> passed_on_;  // [rank] rows
  std::vector<Relay> relays_;
  std::vector<Task> tasks_;
  int32_t num_rounds_ = 0;
};

// Parts `need` at the borders of relays to its receiver, and appends the parts with their relays.
void part(const Need& need, const std::vector<const Relay*>& relays, std::vector<Need>* parts) {
  const Span whole = need.move.rows;
  std::vector<int64_t> borders{whole.begin, whole.end};
  for (const Relay* relay : relays) {
    for (const int64_t border : {relay->rows.begin, relay->rows.end}) {
      if (border > whole.begin && border < whole.end) borders.push_back(border);
    }
  }
  std::sort(borders.begin(), borders.end());
  borders.erase(std::unique(borders.begin(), borders.end()), borders.end());
  for (size_t i = 0; i + 1 < borders.size(); ++i) {
    parts->push_back(need);
    parts->back().move.rows = Span{borders[i], borders[i + 1]};
    for (const Relay* relay : relays) {
      if (relay->rows.contains(parts->back().move.rows)) parts->back().via = relay->via;
    }
  }
}

}  // namespace

std::vector<Relay> relay_in_nodes(Plan* plan) {
  const Topology& topology = plan->request.topology;
  if (topology.levels.size() < 2 || topology.levels.back().bytes_per_second <= 0) return {};
  return Relaying(plan).run();
}

void name_relays(const std::vector<Relay>& relays, Plan* plan) {
  ByOperands<std::vector<const Relay*>> of_receiver;
  for (const Relay& relay : relays) of_receiver[receiver_of(relay)].push_back(&relay);
  std::vector<std::vector<Need>> all(1);
  std::vector<Need>& parts = all.front();
  for (const Need& need : plan->needs) {
    const auto at = of_receiver.find(receiver_of(need.move));
    if (need.move.operand == Operand::key_value && at != of_receiver.end()) {
      part(need, at->second, &parts);
    } else {
      parts.push_back(need);
    }
  }
  std::set<int32_t> rounds;
  for (const Need& need : parts) {
    if (need.via != Rank(-1)) rounds.insert(need.move.round);
  }
  plan->needs = sorted_by_move(plan->num_rounds, plan->request.num_ranks(), all,
                               [](const Need& need) -> const Move& { return need.move; });
  plan->relay_rounds.assign(rounds.begin(), rounds.end());
}

}  // namespace evenspan::plan
