#include "evenspan/plan/plan.h"

#include <map>
#include <span>
#include <tuple>

#include "evenspan/core/error.h"
#include "evenspan/core/hash.h"
#include "evenspan/plan/program.h"
#include "plan/move_order.h"
#include "plan/outputs.h"
#include "plan/relays.h"
#include "plan/strategy/strategy.h"

namespace evenspan::plan {
namespace {

// A tile's operand that is not at home on the tile's rank.
struct OperandUse {
  Operand operand;
  DocumentId document;
  HeadRange heads;
  int32_t stage;
  Span rows;
  bool same_operand(const OperandUse& other) const {
    return operand == other.operand && document == other.document && heads == other.heads;
  }
  friend auto operator<=>(const OperandUse&, const OperandUse&) = default;
};

// Of one rank, sorted. `tasks` are the rank's.
void find_uses(const Plan& plan, Rank rank, std::span<const Task> tasks, std::vector<OperandUse>* uses) {
  uses->clear();
  for (const Task& task : tasks) {
    const Tile& tile = task.tile;
    if (plan.placement.row_of(rank, tile.document, tile.queries) < 0) {
      uses->push_back({Operand::query, tile.document, tile.heads, task.stage, tile.queries});
    }
    if (plan.placement.row_of(rank, tile.document, tile.keys) < 0) {
      uses->push_back(
          {Operand::key_value, tile.document, plan.request.shape.kv_heads(tile.heads), task.stage, tile.keys});
    }
  }
  std::sort(uses->begin(), uses->end());
}

// Fills in the needs' num_tiles and last_stage from the uses of their operand.
void count_tiles(std::span<const OperandUse> uses, std::span<Need> needs) {
  std::vector<Span> rows;
  for (const OperandUse& use : uses) rows.push_back(use.rows);
  for (const Need& need : needs) rows.push_back(need.move.rows);
  for (const Span& whole : union_of(std::move(rows), Join::overlapping)) {
    int32_t last_stage = 0;
    for (const OperandUse& use : uses) {
      if (use.rows.overlaps(whole)) last_stage = std::max(last_stage, use.stage);
    }
    for (Need& need : needs) {
      if (!need.move.rows.overlaps(whole)) continue;
      need.last_stage = last_stage;
      for (const OperandUse& use : uses) need.num_tiles += use.rows.overlaps(need.move.rows) ? 1 : 0;
    }
  }
}

// What the uses of one operand need from elsewhere, once, at the first stage that reads it.
void append_needs(const Plan& plan, Rank rank, std::span<const OperandUse> uses, std::vector<Need>* needs) {
  const OperandUse& first = uses.front();
  const size_t first_need = needs->size();
  std::vector<Span> present = plan.placement.spans_of(rank, first.document);
  for (size_t begin = 0; begin < uses.size();) {
    const int32_t stage = uses[begin].stage;
    std::vector<Span> rows;
    for (; begin < uses.size() && uses[begin].stage == stage; ++begin) rows.push_back(uses[begin].rows);
    for (const Span& whole : union_of(std::move(rows))) {
      for (const Span& missing : subtract(whole, present)) {
        for (const auto& [home, piece] : plan.placement.homes(first.document, missing)) {
          needs->push_back(Need{Move{stage, home, rank, first.operand, first.document, piece, first.heads}, 0, stage});
        }
      }
      present.push_back(whole);
      present = union_of(std::move(present));
    }
  }
  count_tiles(uses, std::span(*needs).subspan(first_need));
}

// Tasks are sorted by rank: the range of one.
std::pair<size_t, size_t> tasks_of(const std::vector<Task>& tasks, Rank rank) {
  const auto [first, last] = std::equal_range(tasks.begin(), tasks.end(), Task{rank, 0, {}},
                                              [](const Task& a, const Task& b) { return a.rank < b.rank; });
  return {static_cast<size_t>(first - tasks.begin()), static_cast<size_t>(last - tasks.begin())};
}

// Strategies mostly write one rank after another: then only each rank's tasks are sorted.
void sort_by_rank_and_stage(std::vector<Task>* tasks) {
  const auto earlier_rank = [](const Task& a, const Task& b) { return a.rank < b.rank; };
  const auto earlier_stage = [](const Task& a, const Task& b) { return a.stage < b.stage; };
  if (!std::is_sorted(tasks->begin(), tasks->end(), earlier_rank)) {
    std::stable_sort(tasks->begin(), tasks->end(), earlier_rank);
  }
  for (auto first = tasks->begin(); first != tasks->end();) {
    const auto last = std::upper_bound(first, tasks->end(), *first, earlier_rank);
    std::stable_sort(first, last, earlier_stage);
    first = last;
  }
}

// What every rank's tiles read that is not at home there.
std::vector<Need> find_needs(const Plan& plan) {
  const int32_t num_ranks = plan.request.num_ranks();
  std::vector<std::vector<Need>> needs(static_cast<size_t>(num_ranks));
  std::vector<OperandUse> uses;
  for (int32_t r = 0; r < num_ranks; ++r) {
    const auto [first_task, last_task] = tasks_of(plan.tasks, Rank(r));
    find_uses(plan, Rank(r), std::span(plan.tasks).subspan(first_task, last_task - first_task), &uses);
    for (size_t first = 0; first < uses.size();) {
      size_t last = first + 1;
      while (last < uses.size() && uses[last].same_operand(uses[first])) ++last;
      append_needs(plan, Rank(r), std::span(uses).subspan(first, last - first), &needs[static_cast<size_t>(r)]);
      first = last;
    }
  }
  return sorted_by_move(plan.num_stages, num_ranks, needs, [](const Need& need) -> const Move& { return need.move; });
}

// The strategy's moves, and direct ones for needed rows that it does not bring.
void complete_moves(Plan* plan) {
  if (plan->moves.empty()) {
    plan->moves.reserve(plan->needs.size());
    for (const Need& need : plan->needs) {
      plan->moves.push_back(need.move);
      if (need.via != Rank(-1)) plan->moves.back().from = need.via;
    }
    return;
  }
  std::map<std::tuple<Rank, Operand, DocumentId>, std::vector<Move>> brought;
  for (const Move& move : plan->moves) brought[{move.to, move.operand, move.document}].push_back(move);
  for (const Need& need : plan->needs) {
    std::vector<Span> present;
    for (const Move& move : brought[{need.move.to, need.move.operand, need.move.document}]) {
      if (move.stage <= need.move.stage && move.heads.contains(need.move.heads)) present.push_back(move.rows);
    }
    for (const Span& missing : subtract(need.move.rows, union_of(std::move(present)))) {
      Move direct = need.move;
      direct.rows = missing;
      plan->moves.push_back(direct);
    }
  }
}

// Needs are sorted, and so are direct moves that are not relayed.
void sort_moves(Plan* plan) {
  std::vector<Move>& moves = plan->moves;
  const auto sorted = std::is_sorted_until(moves.begin(), moves.end());
  std::sort(sorted, moves.end());
  std::inplace_merge(moves.begin(), sorted, moves.end());
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
  parts[3].add(request.cost.stage_seconds);
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
    parts[5].add(task.stage);
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
    const int64_t bytes = std::max(program.forward.arena_bytes, program.backward.arena_bytes) + program.saved_bytes;
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
  sort_by_rank_and_stage(&plan->tasks);
  for (const Task& task : plan->tasks) plan->num_stages = std::max(plan->num_stages, task.stage + 1);
  for (const Move& move : plan->moves) plan->num_stages = std::max(plan->num_stages, move.stage + 1);
  plan->needs = find_needs(*plan);
  const std::vector<Relay> relays = draft.may_relay && plan->direct ? relay_in_nodes(plan.get()) : std::vector<Relay>{};
  if (!relays.empty()) {
    plan->needs = find_needs(*plan);
    name_relays(relays, plan.get());
  }
  complete_moves(plan.get());
  add_outputs(plan.get());
  sort_moves(plan.get());
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
