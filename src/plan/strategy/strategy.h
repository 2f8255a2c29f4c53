// Strategies: pure functions from a request to a draft of a plan. To add one: a file here with its two functions, and a
// row in table.cc.
#pragma once

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

struct Strategy {
  std::string_view name;
  std::string_view summary;
  std::string_view formula;  // bytes and steps in words; docs/algorithms.md explains the symbols
  Draft (*write)(const Request& request);
  // The formula, from the request and the placement alone; tests hold the recorded bytes against it.
  Traffic (*traffic)(const Request& request, const Placement& placement);
};

// The table, in the order in which it is listed to users.
std::span<const Strategy> strategies();

// Throws invalid_argument with the nearest name.
const Strategy& find_strategy(std::string_view name);

}  // namespace evenspan::plan
