#include "evenspan/plan/plan.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <ranges>
#include <span>
#include <tuple>

#include "evenspan/core/error.h"
#include "evenspan/core/hash.h"
#include "evenspan/plan/program.h"
#include "plan/needs.h"
#include "plan/outputs.h"
#include "plan/relays.h"
#include "plan/sorting.h"
#include "plan/strategy/strategy.h"

namespace evenspan::plan {
namespace {

// What the strategy's moves bring, by receiver and document. REQUIRES: the plan outlives this.
class BroughtRows {
 public:
  explicit BroughtRows(const Plan& plan)
      : plan_(plan), num_documents_(static_cast<size_t>(plan.request.documents.size())) {}

  // Appends direct moves of rows of `need` that no other brings in time.
  void append_missing(const Move& need, std::vector<Move>* direct) {
    if (moves_.ends.empty()) part_moves();
    present_.clear();
    for (const Brought& move : moves_[receiver_of(need)]) {
      const bool in_time = move.operand == need.operand && move.round <= need.round;
      if (in_time && move.heads.contains(need.heads)) present_.push_back(move.rows);
    }
    unite(&present_);
    for_each_uncovered(need.rows, present_, [&](const Span& missing) {
      direct->push_back(need);
      direct->back().rows = missing;
    });
  }

 private:
  struct Brought {
    Operand operand;
    int32_t round;
    HeadRange heads;
    Span rows;
  };
  size_t receiver_of(const Move& move) const {
    return static_cast<size_t>(move.to) * num_documents_ + static_cast<size_t>(move.document);
  }

  // Not before the first need, after which direct moves are appended: of whole documents there is none, and moves are
  // most of a plan.
  void part_moves() {
    moves_ = in_buckets(
        std::span(&plan_.moves, 1), static_cast<size_t>(plan_.request.num_ranks()) * num_documents_,
        [this](const Move& move) { return receiver_of(move); },
        [](const Move& move) {
          return Brought{move.operand, move.round, move.heads, move.rows};
        });
  }

  const Plan& plan_;
  const size_t num_documents_;
  Buckets<Brought> moves_;  // of the strategy, by receiver_of(), once there was a need
  std::vector<Span> present_;
};

// Tasks are sorted by rank: the range of one.
std::pair<size_t, size_t> tasks_of(const std::vector<Task>& tasks, Rank rank) {
  const auto [first, last] = std::equal_range(tasks.begin(), tasks.end(), Task{rank, 0, {}},
                                              [](const Task& a, const Task& b) { return a.rank < b.rank; });
  return {static_cast<size_t>(first - tasks.begin()), static_cast<size_t>(last - tasks.begin())};
}

// Tasks of one rank and round keep their order. REQUIRES: num_rounds is set.
void sort_by_rank_and_round(Plan* plan) {
  const auto earlier = [](const Task& a, const Task& b) {
    return std::tie(a.rank, a.round) < std::tie(b.rank, b.round);
  };
  if (std::is_sorted(plan->tasks.begin(), plan->tasks.end(), earlier)) return;
  const auto num_ranks = static_cast<size_t>(plan->request.num_ranks());
  const auto num_rounds = static_cast<size_t>(plan->num_rounds);
  plan->tasks = in_buckets(std::span(&plan->tasks, 1), num_ranks * num_rounds, [num_rounds](const Task& task) {
                  return static_cast<size_t>(task.rank) * num_rounds + static_cast<size_t>(task.round);
                }).items;
}

// Fills in plan->needs: what every rank's tiles read that is not at home there. Appends direct moves to the strategy's,
// if there are any, where they do not bring it.
void find_needs(Plan* plan) {
  const int32_t num_ranks = plan->request.num_ranks();
  std::vector<std::vector<Need>> needs(static_cast<size_t>(num_ranks));
  NeedFinder finder(plan->request, plan->placement);
  BroughtRows brought(*plan);
  for (int32_t r = 0; r < num_ranks; ++r) {
    const auto [first_task, last_task] = tasks_of(plan->tasks, Rank(r));
    auto& of_rank = needs[static_cast<size_t>(r)];
    finder.append(Rank(r), std::span(plan->tasks).subspan(first_task, last_task - first_task), &of_rank);
    if (plan->direct) continue;
    for (const Need& need : of_rank) brought.append_missing(need.move, &plan->moves);
  }
  plan->needs =
      sorted_by_move(plan->num_rounds, num_ranks, needs, [](const Need& need) -> const Move& { return need.move; });
}

// Fills in plan->moves, sorted; those of a strategy that writes moves are there.
void find_moves(Plan* plan) {
  const auto sort = [plan](std::vector<Move>* moves) {
    if (std::is_sorted(moves->begin(), moves->end())) return;
    *moves = sorted_by_move(plan->num_rounds, plan->request.num_ranks(), std::span(moves, 1), std::identity());
  };
  const std::vector<Move> outputs = find_outputs(plan);
  std::vector<Move> operands;
  if (plan->direct) {
    operands.reserve(plan->needs.size());
    for (const Need& need : plan->needs) {
      operands.push_back(need.move);
      if (need.via != Rank(-1)) operands.back().from = need.via;
    }
  } else {
    operands = std::move(plan->moves);
  }
  if (!plan->direct || !plan->relay_rounds.empty()) sort(&operands);
  if (outputs.empty()) {
    plan->moves = std::move(operands);
    return;
  }
  plan->moves.clear();
  plan->moves.reserve(operands.size() + outputs.size());
  std::merge(operands.begin(), operands.end(), outputs.begin(), outputs.end(), std::back_inserter(plan->moves));
}

// Received operands are kept for backward while they are no more than the largest rank's own: a strategy that relays,
// or gathers much, moves them again instead.
bool keeps_operands(const Plan& plan) {
  if (!plan.direct) return false;
  const AttentionShape& shape = plan.request.shape;
  std::vector<int64_t> received(static_cast<size_t>(plan.request.num_ranks()), 0);
  for (const Need& need : plan.needs) {
    received[static_cast<size_t>(need.move.to.value)] += payload_bytes(need.move, shape);
  }
  int64_t most_tokens = 0;
  for (int32_t r = 0; r < plan.request.num_ranks(); ++r) {
    most_tokens = std::max(most_tokens, plan.placement.num_tokens(Rank(r)));
  }
  const int64_t own =
      most_tokens * (shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim * num_bytes(shape.element);
  return std::all_of(received.begin(), received.end(), [own](int64_t bytes) { return bytes <= own; });
}

// Plans of another version of the format are other plans.
constexpr uint64_t kHashVersion = 2;

PlanHash hash_of(const Plan& plan) {
  const Request& request = plan.request;
  std::array<Hasher, 6> parts;
  for (Hasher& part : parts) part.add(kHashVersion);
  for (const Document& document : request.documents.all()) {
    parts[0].add(document.length);
    parts[1].add(static_cast<int64_t>(document.mask.kind));
    parts[1].add(document.mask.extent);
  }
  const AttentionShape& shape = request.shape;
  for (const int64_t value : {int64_t{shape.num_heads}, int64_t{shape.num_kv_heads}, int64_t{shape.head_dim},
                              static_cast<int64_t>(shape.element), int64_t{request.topology.num_ranks}}) {
    parts[2].add(value);
  }
  for (const Level& level : request.topology.levels) {
    parts[2].add(level.group_size);
    parts[2].add(level.latency_seconds);
    parts[2].add(level.bytes_per_second);
  }
  parts[3].add(request.cost.pair_seconds);
  parts[3].add(request.cost.token_seconds);
  parts[3].add(request.cost.tile);
  parts[3].add(request.cost.round_seconds);
  parts[3].add(request.cost.num_layers);
  for (const CostModel::Slowdown& slowdown : request.cost.slowdowns) {
    parts[3].add(slowdown.length);
    parts[3].add(slowdown.factor);
  }
  const Options& options = request.options;
  parts[4].add(options.strategy);
  parts[4].add(options.token_slack);
  parts[4].add(options.ranks_per_group);
  parts[4].add(options.stripe_tokens);
  parts[4].add(options.memory_budget_bytes);
  for (int32_t r = 0; r < plan.placement.num_ranks(); ++r) {
    for (const PlacedSpan& placed : plan.placement.spans(Rank(r))) {
      parts[5].add(r);
      parts[5].add(placed.document.value);
      parts[5].add(placed.span.begin);
      parts[5].add(placed.span.end);
    }
  }
  for (const Task& task : plan.tasks) {
    parts[5].add(task.rank.value);
    parts[5].add(task.round);
    parts[5].add(task.tile.document.value);
    parts[5].add(task.tile.queries.begin);
    parts[5].add(task.tile.queries.end);
    parts[5].add(task.tile.keys.begin);
    parts[5].add(task.tile.keys.end);
    parts[5].add(static_cast<int64_t>(task.tile.kind));
    parts[5].add(task.tile.heads.begin);
    parts[5].add(task.tile.heads.end);
  }
  PlanHash hash;
  for (size_t i = 0; i < parts.size(); ++i) hash.parts[i] = parts[i].state();
  return hash;
}

// The rank that needs the most memory, and how much.
std::pair<Rank, int64_t> peak_memory(const Plan& plan) {
  std::pair<Rank, int64_t> peak{Rank(0), 0};
  for (int32_t r = 0; r < plan.request.num_ranks(); ++r) {
    const RankProgram program = lower(plan, Rank(r));
    const int64_t bytes = program.bytes(Lifetime::phase) + program.bytes(Lifetime::step);
    if (bytes > peak.second) peak = {Rank(r), bytes};
  }
  return peak;
}

void keep_budget(Plan* plan) {
  const int64_t budget = plan->request.options.memory_budget_bytes;
  if (budget == 0) return;
  auto [rank, bytes] = peak_memory(*plan);
  for (bool Plan::*luxury : {&Plan::keep_operands, &Plan::prefetch_all}) {
    if (bytes <= budget || !(plan->*luxury)) continue;
    plan->*luxury = false;
    std::tie(rank, bytes) = peak_memory(*plan);
  }
  if (bytes > budget) {
    fail(ErrorKind::resource, "[plan] ", plan->request.options.strategy, " needs ", bytes,
         " bytes of arena and saved activations on rank ", rank, ", more than the memory budget of ", budget,
         " bytes; raise the budget, use more ranks, or choose a strategy that moves less");
  }
}

}  // namespace

int64_t payload_bytes(const Move& move, const AttentionShape& shape) {
  const int64_t tensors = move.operand == Operand::key_value ? 2 : 1;
  return tensors * move.rows.size() * move.heads.size() * shape.head_dim * num_bytes(shape.element);
}

int64_t payload_bytes(const Partial& partial, const AttentionShape& shape) {
  return partial.rows.size() * partial.heads.size() * (shape.head_dim + 1) *
         num_bytes(accumulation_type(shape.element));
}

uint64_t PlanHash::combined() const {
  Hasher hasher;
  for (const uint64_t part : parts) hasher.add(part);
  return hasher.state();
}

std::shared_ptr<const Plan> make_plan(Request request) {
  validate(request);
  Draft draft = find_strategy(request.options.strategy).write(request);
  return make_plan(std::move(request), std::move(draft));
}

std::shared_ptr<const Plan> make_plan(Request request, Draft draft) {
  auto plan = std::make_shared<Plan>();
  plan->request = std::move(request);
  plan->placement = std::move(draft.placement);
  plan->tasks = std::move(draft.tasks);
  plan->moves = std::move(draft.moves);
  plan->direct = plan->moves.empty();
  for (const Task& task : plan->tasks) plan->num_rounds = std::max(plan->num_rounds, task.round + 1);
  for (const Move& move : plan->moves) plan->num_rounds = std::max(plan->num_rounds, move.round + 1);
  sort_by_rank_and_round(plan.get());
  find_needs(plan.get());
  const std::vector<Relay> relays = draft.may_relay && plan->direct ? relay_in_nodes(plan.get()) : std::vector<Relay>{};
  if (!relays.empty()) {
    find_needs(plan.get());
    name_relays(relays, plan.get());
  }
  find_moves(plan.get());
  plan->prefetch_all = plan->direct && plan->partials.empty();
  plan->keep_operands = keeps_operands(*plan);
  keep_budget(plan.get());
  plan->hash = hash_of(*plan);
  return plan;
}

std::vector<double> pairs_by_rank(const Plan& plan) {
  const Request& request = plan.request;
  std::vector<double> pairs(static_cast<size_t>(request.num_ranks()), 0);
  for (const Task& task : plan.tasks) {
    const int64_t window = request.documents[task.tile.document].mask.extent;
    pairs[static_cast<size_t>(task.rank.value)] +=
        static_cast<double>(num_pairs(task.tile, window)) * task.tile.heads.size() / request.shape.num_heads;
  }
  return pairs;
}

Metrics measure(const Plan& plan) {
  const Request& request = plan.request;
  const auto num_ranks = static_cast<size_t>(request.num_ranks());
  Metrics metrics;
  metrics.sent_bytes.assign(num_ranks, 0);
  metrics.pairs = pairs_by_rank(plan);
  double most_work = 0, work = 0;
  int64_t most_tokens = 0;
  for (size_t r = 0; r < num_ranks; ++r) {
    metrics.tokens.push_back(plan.placement.num_tokens(Rank(static_cast<int64_t>(r))));
    metrics.work_seconds.push_back(request.cost.pair_seconds * metrics.pairs[r] +
                                   request.cost.token_seconds * static_cast<double>(metrics.tokens[r]));
    most_tokens = std::max(most_tokens, metrics.tokens[r]);
    most_work = std::max(most_work, metrics.work_seconds[r]);
    work += metrics.work_seconds[r];
  }
  const auto ranks = static_cast<double>(num_ranks);
  metrics.tokens_max_over_mean =
      static_cast<double>(most_tokens) * ranks / static_cast<double>(request.documents.total_tokens());
  metrics.work_max_over_mean = most_work * ranks / work;
  for_each_transfer(plan, [&metrics](const auto& sent, int64_t bytes) {
    metrics.sent_bytes[static_cast<size_t>(sent.from.value)] += bytes;
    metrics.sent_bytes_total += bytes;
  });
  metrics.ring_bytes_total = (request.num_ranks() - 1) * request.documents.total_tokens() * 2 *
                             request.shape.num_kv_heads * request.shape.head_dim * num_bytes(request.shape.element);
  metrics.bound = lower_bound(request, BalanceLimits{1.01, 1 + request.options.token_slack});
  return metrics;
}

}  // namespace evenspan::plan
