#include "oracle.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <limits>
#include <random>

#include "batch/divide.h"
#include "batch/groups.h"

namespace evenspan::batch {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The least seconds of one micro-batch of these documents, micro_batch_seconds left out, in units of `unit` seconds, of
// which it takes no more than 1.
class MicroBatchProgram {
 public:
  MicroBatchProgram(std::vector<int64_t> lengths, const Cost& cost, double unit)
      : lengths_(std::move(lengths)), cost_(cost), unit_(unit), num_ranks_(static_cast<size_t>(cost.num_ranks)) {
    seconds_ = add_column(1, 1, false);
    rank_seconds_.resize(num_ranks_);
    rank_tokens_.resize(num_ranks_);
    for (size_t i = 0; i < lengths_.size(); ++i) add_document(i);
    for (size_t rank = 0; rank < num_ranks_; ++rank) {
      rank_seconds_[rank].push_back({seconds_, -1});
      add_row(-kInfinity, 0, rank_seconds_[rank]);
      add_row(-kInfinity, 1, rank_tokens_[rank]);
    }
    order_ranks();
    order_equal_documents();
  }

  // False: a document takes more than `unit`, whatever its ranks.
  bool may_be_feasible() const { return may_be_feasible_; }
  const Milp& milp() const { return milp_; }

 private:
  // Numbers of ranks and nodes on which a document pays one rate.
  struct Level {
    int32_t column = 0;
    size_t power = 0;  // the rate is exchange_seconds[power]
  };

  int32_t add_column(double cost, double upper, bool is_integer) {
    milp_.columns.push_back({cost, 0, upper, is_integer});
    return static_cast<int32_t>(milp_.columns.size() - 1);
  }

  void add_row(double lower, double upper, std::vector<Milp::Entry> entries) {
    milp_.rows.push_back({lower, upper, std::move(entries)});
  }

  double most_ranks(size_t power) const { return static_cast<double>(std::min(size_t{1} << power, num_ranks_)); }

  // The most nodes on which a document pays no more than the rate of this power.
  double most_nodes(size_t power) const {
    int32_t nodes = 1;
    while (nodes < num_nodes() && cost_.paid_degree(1, nodes + 1) <= 1 << power) ++nodes;
    return nodes;
  }

  int32_t num_nodes() const { return static_cast<int32_t>(cost_.node_of(Rank(cost_.num_ranks - 1)) + 1); }

  void add_document(size_t i) {
    const auto tokens = static_cast<double>(lengths_[i]);
    const auto capacity = static_cast<double>(cost_.capacity_tokens);
    std::vector<Milp::Entry> one_level, ranks, nodes, slowest{{seconds_, 1}};
    std::vector<std::vector<Milp::Entry>> on_rank(num_ranks_);
    std::vector<Level>& levels = levels_.emplace_back();
    for (size_t power = 0; power < cost_.exchange_seconds.size(); ++power) {
      const double rate = cost_.exchange_seconds[power];
      const double seconds = (cost_.work(lengths_[i]) + rate * tokens) / unit_;
      const bool is_dominated = power + 1 < cost_.exchange_seconds.size() && rate == cost_.exchange_seconds[power + 1];
      if (is_dominated || tokens > capacity * most_ranks(power) || seconds > most_ranks(power) * (1 + 1e-6)) continue;
      const int32_t level = add_column(0, 1, true);
      levels.push_back({level, power});
      one_level.push_back({level, 1});
      ranks.push_back({level, -most_ranks(power)});
      nodes.push_back({level, -most_nodes(power)});
      slowest.push_back({level, -seconds / most_ranks(power)});
      std::vector<Milp::Entry> all_shares{{level, -1}};
      for (size_t rank = 0; rank < num_ranks_; ++rank) {
        const int32_t share = add_column(0, 1, false);  // of the document's tokens
        all_shares.push_back({share, 1});
        on_rank[rank].push_back({share, 1});
        rank_seconds_[rank].push_back({share, seconds});
        rank_tokens_[rank].push_back({share, tokens / capacity});
      }
      add_row(0, 0, all_shares);
    }
    if (levels.empty()) may_be_feasible_ = false;
    add_row(1, 1, one_level);
    add_row(0, kInfinity, slowest);
    std::vector<int32_t>& presence = presence_.emplace_back();
    std::vector<int32_t> node_presence;
    for (int32_t node = 0; node < num_nodes(); ++node) {
      node_presence.push_back(add_column(0, 1, false));
      nodes.push_back({node_presence.back(), 1});
    }
    for (size_t rank = 0; rank < num_ranks_; ++rank) {
      presence.push_back(add_column(0, 1, true));
      ranks.push_back({presence[rank], 1});
      on_rank[rank].push_back({presence[rank], -std::min(1.0, capacity / tokens)});
      add_row(-kInfinity, 0, on_rank[rank]);
      const auto node = static_cast<size_t>(cost_.node_of(Rank(static_cast<int32_t>(rank))));
      add_row(-kInfinity, 0, {{presence[rank], 1}, {node_presence[node], -1}});
    }
    add_row(-kInfinity, 0, ranks);
    add_row(-kInfinity, 0, nodes);
  }

  // Ranks of a node can change places, and nodes of as many ranks: the documents on a rank, read as the digits of a
  // number, fall within a node, and so do those on the first ranks of nodes.
  void order_ranks() {
    for (int32_t rank = 0; rank + 1 < cost_.num_ranks; ++rank) {
      if (cost_.node_of(Rank(rank)) == cost_.node_of(Rank(rank + 1))) add_order(rank, rank + 1);
      const int32_t next = rank + cost_.ranks_per_node;
      if (rank % cost_.ranks_per_node == 0 && next + cost_.ranks_per_node <= cost_.num_ranks) add_order(rank, next);
    }
  }

  void add_order(int32_t before, int32_t after) {
    std::vector<Milp::Entry> entries;
    double digit = 1;
    for (const std::vector<int32_t>& presence : presence_) {
      entries.push_back({presence[static_cast<size_t>(before)], digit});
      entries.push_back({presence[static_cast<size_t>(after)], -digit});
      digit /= 2;
    }
    add_row(0, kInfinity, entries);
  }

  // Documents of one length can change places: their rates fall.
  void order_equal_documents() {
    for (size_t i = 0; i + 1 < lengths_.size(); ++i) {
      if (lengths_[i] != lengths_[i + 1]) continue;
      std::vector<Milp::Entry> entries;
      for (const Level& level : levels_[i]) entries.push_back({level.column, static_cast<double>(level.power)});
      for (const Level& level : levels_[i + 1]) entries.push_back({level.column, -static_cast<double>(level.power)});
      add_row(0, kInfinity, entries);
    }
  }

  std::vector<int64_t> lengths_;
  const Cost& cost_;
  double unit_;
  size_t num_ranks_;
  Milp milp_;
  bool may_be_feasible_ = true;
  int32_t seconds_ = 0;
  std::vector<std::vector<Level>> levels_;              // [document]
  std::vector<std::vector<int32_t>> presence_;          // [document][rank]
  std::vector<std::vector<Milp::Entry>> rank_seconds_;  // [rank]
  std::vector<std::vector<Milp::Entry>> rank_tokens_;   // [rank], of capacity_tokens
};

// Sets of documents are masks, and what is known of one is kept at its standard set (divide.h).
class Oracle {
 public:
  Oracle(std::span<const int64_t> lengths, const Cost& cost, double target)
      : lengths_(lengths.begin(), lengths.end()),
        cost_(cost),
        target_(target),
        all_((size_t{1} << lengths.size()) - 1),
        least_(all_ + 1, 0),
        is_exact_(all_ + 1, false) {
    std::sort(lengths_.begin(), lengths_.end(), std::greater<>());
    standard_ = standard_sets(lengths_);
    bound_sets();
  }

  OracleAnswer ask(MilpSolver& solver, double most_seconds) {
    const auto begin = std::chrono::steady_clock::now();
    OracleAnswer answer;
    while (true) {
      divide();
      answer.seconds = best_[all_];
      if (answer.seconds >= target_) {
        answer.verdict = Verdict::within;
        return answer;
      }
      size_t widest = 0;
      for (size_t left = all_; left != 0; left ^= first_[left]) {
        const size_t set = standard_[first_[left]];
        if (!is_exact_[set] && (widest == 0 || least_[set] > least_[widest])) widest = set;
      }
      if (widest == 0) {
        answer.verdict = Verdict::worse;
        return answer;
      }
      const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
      if (spent.count() >= most_seconds) return answer;
      ++answer.num_programs;
      solve(widest, target_ - best_[all_ ^ widest], solver, most_seconds - spent.count());
    }
  }

 private:
  // Whole documents on ranks without regard to the others, and the others divided over all ranks at the rate that they
  // pay at least: no micro-batch of a plan that takes less than the target takes less.
  void bound_sets() {
    const double most = target_ - cost_.micro_batch_seconds;
    std::vector<int64_t> tokens(all_ + 1, 0);
    std::vector<double> work(all_ + 1, 0), cut(all_ + 1, 0), slowest(all_ + 1, 0);  // cut: with all-to-alls
    for (size_t set = 1; set <= all_; ++set) {
      const auto i = static_cast<size_t>(std::countr_zero(set));
      const size_t rest = set & (set - 1);
      const int32_t degree = std::max(2, degree_within(lengths_[i], most, cost_));
      const double exchange = degree > cost_.num_ranks ? kInfinity : cost_.exchange(degree);
      const double seconds = cost_.work(lengths_[i]) + exchange * static_cast<double>(lengths_[i]);
      tokens[set] = tokens[rest] + lengths_[i];
      work[set] = work[rest] + cost_.work(lengths_[i]);
      cut[set] = cut[rest] + seconds;
      slowest[set] = std::max(slowest[rest], seconds / cost_.num_ranks);
    }
    std::vector<double> whole(all_ + 1, kInfinity);  // of the slowest of the ranks so far
    whole[0] = 0;
    for (int32_t rank = 0; rank < cost_.num_ranks; ++rank) {
      std::vector<double> next = whole;
      for (size_t set = 1; set <= all_; ++set) {
        const size_t lowest = set & (~set + 1);
        for (size_t some = set; some != 0; some = (some - 1) & set) {
          if ((some & lowest) == 0 || tokens[some] > cost_.capacity_tokens) continue;
          next[set] = std::min(next[set], std::max(work[some], whole[set ^ some]));
        }
      }
      whole = std::move(next);
    }
    for (size_t set = 1; set <= all_; ++set) {
      if (standard_[set] != set) continue;
      least_[set] = kInfinity;
      if (tokens[set] > cost_.cluster_tokens()) continue;
      for (size_t some = set;; some = (some - 1) & set) {
        const double mean = (work[some] + cut[set ^ some]) / cost_.num_ranks;
        least_[set] = std::min(least_[set], std::max({whole[some], mean, slowest[set ^ some]}));
        if (some == 0) break;
      }
      least_[set] = std::max(least_[set] + cost_.micro_batch_seconds, lower_bound(lengths_of(set), cost_).seconds);
    }
  }

  std::vector<int64_t> lengths_of(size_t set) const {
    std::vector<int64_t> out;
    for (size_t i = 0; i < lengths_.size(); ++i) {
      if (set >> i & 1) out.push_back(lengths_[i]);
    }
    return out;
  }

  // The best way to divide every set, by the bounds: its seconds, and the set with its first document.
  void divide() {
    best_.assign(all_ + 1, kInfinity);
    first_.assign(all_ + 1, 0);
    best_[0] = 0;
    for (size_t set = 1; set <= all_; ++set) {
      const size_t lowest = set & (~set + 1);
      for (size_t some = set; some != 0; some = (some - 1) & set) {
        if ((some & lowest) == 0) continue;
        const double seconds = least_[standard_[some]] + best_[set ^ some];
        if (first_[set] == 0 || seconds < best_[set]) {
          best_[set] = seconds;
          first_[set] = some;
        }
      }
    }
  }

  // Raises the bound of a set to its seconds or to `most`, and those of the sets that hold it.
  void solve(size_t set, double most, MilpSolver& solver, double most_seconds) {
    const double unit = most - cost_.micro_batch_seconds;
    double least = most;
    const MicroBatchProgram program(lengths_of(set), cost_, unit);
    if (program.may_be_feasible()) {
      const MilpSolution solution = solver.solve(program.milp(), {}, most_seconds);
      least = std::min(most, solution.bound * unit + cost_.micro_batch_seconds);
      is_exact_[set] = solution.is_optimal;
    }
    for (size_t other = set; other <= all_; ++other) {
      if ((other & set) == set) {
        double& known = least_[standard_[other]];
        known = std::max(known, least);
      }
    }
  }

  std::vector<int64_t> lengths_;  // the longest first
  const Cost& cost_;
  double target_;
  size_t all_;
  std::vector<size_t> standard_;  // [set]
  std::vector<double> least_;     // [standard set], no fewer seconds as one micro-batch
  std::vector<bool> is_exact_;    // [standard set], the seconds are known
  std::vector<double> best_;      // [set], in any number of micro-batches
  std::vector<size_t> first_;     // [set], the micro-batch of the longest document there
};

}  // namespace

OracleCase oracle_case(uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto below = [&](uint64_t limit) { return static_cast<int64_t>(random() % limit); };
  const auto part = [&] { return static_cast<double>(below(1 << 20)) / (1 << 20); };
  OracleCase out;
  Cost& cost = out.cost;
  cost.num_ranks = static_cast<int32_t>(1 + below(8));
  cost.ranks_per_node = 1 << below(4);

  const int64_t count = 2 + below(11);
  out.kind = static_cast<Lengths>(below(4));
  const int64_t equal = 1000 + below(60000);
  for (int64_t i = 0; i < count; ++i) {
    int64_t length = equal;
    if (out.kind == Lengths::uniform) length = 1 + below(60000);
    if (out.kind == Lengths::log_normal) {
      double normal = -6;  // a sum of 12 uniform numbers is near to normal
      for (int j = 0; j < 12; ++j) normal += part();
      length = 1 + static_cast<int64_t>(3000 * std::exp(1.5 * normal));
    }
    if (out.kind == Lengths::long_one) length = i == 0 ? 30000 + below(100000) : 1 + below(6000);
    out.lengths.push_back(length);
  }

  int64_t tokens = 0;
  double work = 0;
  const int64_t longest = *std::max_element(out.lengths.begin(), out.lengths.end());
  cost.token_seconds = 1e-4;
  const double pairs[] = {0, 0.25, 1, 4};  // seconds of the longest document's pairs over those of its tokens
  cost.square_seconds = pairs[below(4)] * cost.token_seconds / static_cast<double>(longest);
  for (const int64_t length : out.lengths) {
    tokens += length;
    work += cost.work(length);
  }
  const int64_t tightest = (longest + cost.num_ranks - 1) / cost.num_ranks;
  const double looseness = below(8) == 0 ? 0 : part();
  cost.capacity_tokens = std::max(
      tightest, static_cast<int64_t>(static_cast<double>(tightest) *
                                     std::pow(static_cast<double>(tokens) / static_cast<double>(tightest), looseness)));
  const double micro_batches[] = {0, 0.02, 0.3, 2};  // of the documents' seconds on all ranks
  cost.micro_batch_seconds = micro_batches[below(4)] * work / cost.num_ranks;

  const double in_node[] = {0, 0.01, 0.1, 0.5}, over_nodes[] = {0, 0.05, 1, 4};  // of token_seconds
  const int64_t price = below(4);
  cost.exchange_seconds = {0};
  for (int32_t degree = 2; degree / 2 < cost.num_ranks; degree *= 2) {
    const bool is_in_node = degree <= cost.ranks_per_node;
    const double first = is_in_node ? in_node[price] : over_nodes[price];
    const double growth = std::pow(is_in_node ? 1.1 : 1.5, std::countr_zero(static_cast<uint32_t>(degree)) - 1);
    cost.exchange_seconds.push_back(first * growth * cost.token_seconds);
  }
  return out;
}

OracleAnswer ask_oracle(std::span<const int64_t> lengths, const Cost& cost, double target, MilpSolver& solver,
                        double most_seconds) {
  return Oracle(lengths, cost, target).ask(solver, most_seconds);
}

}  // namespace evenspan::batch
