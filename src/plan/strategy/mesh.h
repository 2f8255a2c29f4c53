// The tiles of `mesh`, for its draft and its closed forms.
#pragma once

#include <vector>

#include "plan/strategy/strategy.h"

namespace evenspan::plan {

// A rank whose queries, or keys, come to a rank, and the round from which on they are there.
struct Operands {
  Rank home;
  int32_t round;
};
// The queries and keys that meet on a rank, its own first, the others as they come.
struct MeshTile {
  std::vector<Operands> queries, keys;
};
MeshTile mesh_tile(const Request& request, Rank rank);

}  // namespace evenspan::plan
