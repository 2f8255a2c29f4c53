// Strategies: pure functions from a request to a draft of a plan. To add one: a file here with its two functions, and a
// row in table.cc.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "evenspan/plan/plan.h"

namespace evenspan::plan {

// What a strategy writes. Tiles of a query row on several ranks have the same heads, or disjoint ones; rows that a rank
// receives for tiles of one round and heads are not cut anew for another's. `moves` holds
// operands only (outputs go home by themselves); it may be left empty, or incomplete: make_plan adds direct moves for
// what a tile needs and nobody brings.
struct Draft {
  Placement placement;
  std::vector<Task> tasks;
  std::vector<Move> moves;
  bool may_relay = false;  // keys and values may reach a rank by way of another one of its node; without own moves
};

// The plan of a draft: make_plan(request) with the draft of its strategy. REQUIRES: the request is valid; the tiles
// cover what the masks allow.
std::shared_ptr<const Plan> make_plan(Request request, Draft draft);

// What the table's formula says of one layer's forward pass.
struct Traffic {
  int64_t sent_bytes = 0;  // payload, all ranks together
  int32_t num_steps = 0;   // exchanges that the slowest rank takes part in
};

// Where a strategy that treats all documents alike puts the tokens of one.
enum class Layout : uint8_t {
  chunks,   // an equal chunk on each rank
  zigzag,   // two equal chunks on each rank, one from either end
  stripes,  // stripes of Options::stripe_tokens, dealt in turn
  stream,   // where they are when the batch is one stream in equal pieces
};

// How the ranks of such a strategy get at what they lack.
enum class Circulation : uint8_t {
  keys,           // keys and values go around a ring
  queries,        // queries go around a ring
  gather,         // keys and values go to all
  halves,         // keys and values of one half of the ranks, and queries of the other half, go to each
  tiles,          // queries and keys of a few ranks go to each
  heads,          // every rank gets some heads of all tokens
  keys_by_heads,  // heads inside groups, and keys and values around a ring of groups
};

// What the closed form of a strategy's step is made of (simulate/formula.h).
struct Uniform {
  Layout layout;
  Circulation circulation;
};

// Which variants of a strategy `auto` tries.
enum class Variants : uint8_t {
  one,             // that of the default options
  groups_in_node,  // every size of groups that divides the ranks and fits in a node
  groups,          // those, and doubles of a node's size
};

struct Traits {
  Variants variants = Variants::one;
  std::optional<Uniform> uniform = {};  // NOLINT(readability-redundant-member-init): left out of most rows
  bool takes_ranks_per_group = false, takes_stripe_tokens = false, takes_token_slack = false;  // of Options
  bool splits_all_heads = false;  // of every document that a group shares
};

struct Strategy {
  std::string_view name;
  std::string_view summary;
  std::string_view formula;  // bytes and steps in words; docs/algorithms.md explains the symbols
  Draft (*write)(const Request& request);
  // The formula, from the request and the placement alone; tests hold the recorded bytes against it.
  Traffic (*traffic)(const Request& request, const Placement& placement);
  Traits traits;  // all that lists, options, `auto` and predictions know of it
};

// The table, in the order in which it is listed to users.
std::span<const Strategy> strategies();

// Throws invalid_argument with the nearest name.
const Strategy& find_strategy(std::string_view name);

}  // namespace evenspan::plan
