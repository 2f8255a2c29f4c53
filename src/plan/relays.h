// Keys and values that several ranks of a node need come from other nodes once.
#pragma once

#include <vector>

#include "evenspan/plan/plan.h"

namespace evenspan::plan {

// Rows that `to` gets from `via`, a rank of its node that needs them too, instead of from their home in another node.
struct Relay {
  Rank via, to;
  DocumentId document;
  HeadRange heads;  // kv heads
  Span rows;
  bool waits = false;  // both need them for the same round: `to` one round later
};

// Chooses, where the links between nodes would hold attention up for longer than more rounds do: the first rank of a
// node that needs rows gets them from their home, and those that need them for later rounds from a rank of the node
// that has them by then, the one that passes on least. Those that need them for the same round as the first get them
// one round later: their full tiles are parted by when their keys come, and rows that other tiles read come from home.
// Changes tasks, which are sorted again, and num_rounds. REQUIRES: needs are those of the tasks; no strategy has
// written moves.
std::vector<Relay> relay_in_nodes(Plan* plan);

// Parts the needs where relays do, names the relays in them, and sets relay_rounds. REQUIRES: needs are those of the
// changed tasks.
void name_relays(const std::vector<Relay>& relays, Plan* plan);

}  // namespace evenspan::plan
