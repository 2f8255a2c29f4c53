// The plan of a batch: who holds which tokens, who computes which tile, and who sends which rows to whom. Written by a
// strategy for all ranks at once; each rank lowers its own program from it (lower.h).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "evenspan/plan/bound.h"
#include "evenspan/plan/placement.h"
#include "evenspan/plan/request.h"
#include "evenspan/plan/tile.h"

namespace evenspan::plan {

// A tile on a rank. A rank runs its rounds one after another, each as soon as the moves of that round are in; moves of
// later rounds travel meanwhile.
struct Task {
  Rank rank;
  int32_t round = 0;
  Tile tile;
  friend auto operator<=>(const Task&, const Task&) = default;
};

enum class Operand : uint8_t { query, key_value, output };

// Rows of queries, of keys and values together, or of finished outputs, that travel from one rank to another.
struct Move {
  int32_t round = 0;  // operands: of the tasks that need them first; outputs: of the last task that adds to them
  Rank from;          // holds the rows at home, has received them in an earlier round, or has computed them
  Rank to;
  Operand operand = Operand::key_value;
  DocumentId document;
  Span rows;
  HeadRange heads;          // query heads, or kv heads of key_value
  int32_t first_round = 0;  // outputs: of the first task that adds to them, after which their queries' gradients leave
  friend auto operator<=>(const Move&, const Move&) = default;
};

// Payload of a move: one tensor, or two of key_value.
int64_t payload_bytes(const Move& move, const AttentionShape& shape);

// Rows of an output that several ranks compute parts of: `from` folds its tiles into one partial output and
// log-sum-exp, and `to`, home of the rows, folds all of them into the final one. In backward `from` receives what its
// tiles need of the final output, and returns a gradient of queries.
struct Partial {
  Rank from;
  Rank to;  // may be `from`, where its tiles reach beyond its home
  DocumentId document;
  Span rows;
  HeadRange heads;  // query heads
  int32_t first_round = 0,
          last_round = 0;  // of from's tiles of these rows, and of tiles whose rows overlap with theirs
  int32_t num_tiles = 0;   // of `from` in these rows, >= 1
};

// Payload of a partial: outputs and log-sum-exps, in the accumulation type.
int64_t payload_bytes(const Partial& partial, const AttentionShape& shape);

// The part of a receiver's operands that its tiles really read, straight from their home: what backward moves again
// when nothing was kept, and, reversed, the way of the gradients.
struct Need {
  Move move;
  int32_t num_tiles = 0;   // tiles of the receiver that read some of it, >= 1
  int32_t last_round = 0;  // of these tiles, and of tiles whose rows overlap with theirs; the move's round is the first
  Rank via{-1};  // keys and values: the rank of the receiver's node that forward gets them from; -1: their home
};

// What ranks compare before the first exchange of a plan, in this order.
struct PlanHash {
  static constexpr std::array<const char*, 6> kParts = {"document lengths", "masks",   "attention shape and topology",
                                                        "cost model",       "options", "placement and tiles"};
  std::array<uint64_t, 6> parts{};
  uint64_t combined() const;
  friend bool operator==(const PlanHash&, const PlanHash&) = default;
};

// An immutable value. Each query row and head has one finisher, where its final output and log-sum-exp lie: the rank of
// its tiles when all are on one rank, and the row's home otherwise.
struct Plan {
  Request request;
  Placement placement;
  std::vector<Task> tasks;        // sorted by rank and round; inside, in the order in which partial results fold
  std::vector<Move> moves;        // of the forward pass, sorted
  std::vector<Need> needs;        // sorted by move
  std::vector<Partial> partials;  // sorted by last round, document, heads, rows and ranks
  int32_t num_rounds = 1;
  std::vector<int32_t> relay_rounds;  // ascending: rounds in which some rank passes on what it received, by Need::via
  bool direct = false;                // the strategy wrote no moves: what travels follows from the tiles
  bool prefetch_all = false;          // the moves of all rounds start at once; false: one round ahead of the tiles
  bool keep_operands = false;         // received queries, keys and values are saved for backward instead of moved again
  PlanHash hash;
};

// Runs the strategy that `request.options.strategy` names. Throws invalid_argument for a bad request, and resource when
// no plan keeps the memory budget (the text names the tightest constraint).
std::shared_ptr<const Plan> make_plan(Request request);

// The plan of layers with other masks for a batch that `base` plans: hidden states stay where they are from layer to
// layer, so it has base's placement. `documents` have base's lengths; the rest of the request is base's. A document on
// which both masks allow the same pairs has base's mask, tiles and moves. The queries of the others stay at home, and
// the keys that their masks need come there, straight or by way of a rank of the node. Throws invalid_argument for
// other lengths, and resource as make_plan() does.
std::shared_ptr<const Plan> make_plan_on(const Plan& base, const Documents& documents);

// The plan of documents that each lie, in equal parts in the order given, on `groups[document]`, whose ranks split its
// heads, and its rows where there are more ranks than heads: Ulysses (arXiv 2309.14509) in a group for each document,
// as planners of global batches place them. The request's strategy is a name alone. Throws invalid_argument unless
// every document has one or more different ranks, and as make_plan() does.
std::shared_ptr<const Plan> make_plan_of_groups(Request request, const std::vector<std::vector<Rank>>& groups);

// Calls f(what, bytes) for each move and partial that leaves its rank: `what` has from, to, document, rows and heads.
template <class F>
void for_each_transfer(const Plan& plan, F&& f) {
  for (const Move& move : plan.moves) f(move, payload_bytes(move, plan.request.shape));
  for (const Partial& partial : plan.partials) {
    if (partial.from != partial.to) f(partial, payload_bytes(partial, plan.request.shape));
  }
}

// [rank]: pairs of its tiles, each counted as the part of the heads that the rank computes.
std::vector<double> pairs_by_rank(const Plan& plan);

struct Metrics {
  double tokens_max_over_mean = 1;
  double work_max_over_mean = 1;     // by the request's cost model
  std::vector<int64_t> tokens;       // [rank]
  std::vector<double> pairs;         // pairs_by_rank()
  std::vector<double> work_seconds;  // [rank]
  std::vector<int64_t> sent_bytes;   // [rank], payload of one layer's forward
  int64_t sent_bytes_total = 0;
  int64_t ring_bytes_total = 0;  // (ranks - 1) x tokens x 2 x kv heads x head dim x bytes per element
  Bound bound;                   // with work at most 1.01 and tokens at most 1 + token_slack of the mean

  // Whether the plan is as even as the bound asks; one that is not may send less.
  bool keeps_limits() const {
    return work_max_over_mean <= bound.limits.work_max_over_mean &&
           tokens_max_over_mean <= bound.limits.tokens_max_over_mean;
  }
};
Metrics measure(const Plan& plan);

}  // namespace evenspan::plan
