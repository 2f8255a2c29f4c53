// The kinds of damage that mutation tests do to plans.
#pragma once

#include <algorithm>
#include <functional>
#include <random>
#include <span>
#include <vector>

#include "evenspan/plan/program.h"
#include "plan/verify/proof.h"
#include "plan/visit.h"

namespace evenspan::test {

class Dice {
 public:
  explicit Dice(uint64_t seed) : random_(seed) {}
  // In [0, n). REQUIRES: n >= 1.
  size_t below(size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random_); }
  bool coin() { return below(2) == 0; }
  template <class T>
  T& one_of(std::vector<T>& list) {
    return list[below(list.size())];
  }

 private:
  std::mt19937_64 random_;
};

// Damages one random place where the damage cannot be harmless; false when the plan has no such place.
struct Mutation {
  const char* name;
  bool (*damage)(Dice& dice, plan::LoweredPlan& plan);
};

std::span<const Mutation> operation_mutations();  // operations and waits
std::span<const Mutation> message_mutations();
std::span<const Mutation> block_mutations();    // blocks and their memory
std::span<const Mutation> segment_mutations();  // segments and what they add up to

// ---- Finding places ----

struct PhasePlace {
  int32_t rank;
  plan::PhaseKind kind;
  friend bool operator==(const PhasePlace&, const PhasePlace&) = default;
};

inline plan::Phase& phase_at(plan::LoweredPlan& plan, PhasePlace place) {
  return plan.programs[static_cast<size_t>(place.rank)].phase(place.kind);
}

inline std::vector<PhasePlace> phase_places(const plan::LoweredPlan& plan) {
  std::vector<PhasePlace> places;
  for (int32_t rank = 0; rank < static_cast<int32_t>(plan.programs.size()); ++rank) {
    for (const plan::Phase& phase : plan.programs[static_cast<size_t>(rank)].phases)
      places.push_back({rank, phase.kind});
  }
  return places;
}

struct OperationPlace {
  PhasePlace phase;
  size_t index;
};

inline plan::Operation& operation_at(plan::LoweredPlan& plan, OperationPlace place) {
  return phase_at(plan, place.phase).operations[place.index];
}

// Operations that hold a Body and satisfy `fits(body, place)`.
template <class Body, class F>
std::vector<OperationPlace> places_of(plan::LoweredPlan& plan, F&& fits) {
  std::vector<OperationPlace> places;
  for (const PhasePlace phase : phase_places(plan)) {
    auto& operations = phase_at(plan, phase).operations;
    for (size_t i = 0; i < operations.size(); ++i) {
      const OperationPlace place{phase, i};
      if (auto* body = std::get_if<Body>(&operations[i].body); body != nullptr && fits(*body, place)) {
        places.push_back(place);
      }
    }
  }
  return places;
}

// A block in the plan; the pointer holds until operations are inserted or erased.
struct BlockPlace {
  OperationPlace operation;
  plan::Access access;
  plan::Block* block;
};

inline std::vector<BlockPlace> blocks_of(plan::LoweredPlan& plan, OperationPlace place) {
  std::vector<BlockPlace> blocks;
  plan::for_each_block(operation_at(plan, place), plan.request.shape, [&](plan::Block& block, plan::Access access) {
    blocks.push_back(BlockPlace{place, access, &block});
  });
  return blocks;
}

// [operation]
inline std::vector<std::vector<BlockPlace>> blocks_of(plan::LoweredPlan& plan, PhasePlace phase) {
  std::vector<std::vector<BlockPlace>> blocks;
  for (size_t i = 0; i < phase_at(plan, phase).operations.size(); ++i) blocks.push_back(blocks_of(plan, {phase, i}));
  return blocks;
}

template <class F>
std::vector<BlockPlace> block_places(plan::LoweredPlan& plan, F&& fits) {
  std::vector<BlockPlace> places;
  for (const PhasePlace phase : phase_places(plan)) {
    for (size_t i = 0; i < phase_at(plan, phase).operations.size(); ++i) {
      for (const BlockPlace& place : blocks_of(plan, {phase, i})) {
        if (fits(place)) places.push_back(place);
      }
    }
  }
  return places;
}

// Whether both are in one rank's memory at overlapping bytes.
inline bool share_bytes(const plan::LoweredPlan& plan, const plan::Block& a, const plan::Block& b) {
  if (a.buffer != b.buffer || (a.buffer == plan::BufferId::home && a.tensor != b.tensor)) return false;
  const plan::proofs::Sizes sizes(plan.request.shape);
  return sizes.area(a).begin < sizes.area(b).end() && sizes.area(b).begin < sizes.area(a).end();
}

// Whether both are of the same rows of the same heads, in part.
inline bool share_content(const plan::Block& a, const plan::Block& b) {
  return a.tensor == b.tensor && a.document == b.document && a.rows.overlaps(b.rows) && a.heads.overlaps(b.heads);
}

// Whether the operation touches the block's rows where they are: reads them, or writes them.
inline bool touches(plan::LoweredPlan& plan, OperationPlace place, const plan::Block& block, bool reads) {
  bool found = false;
  plan::for_each_block(operation_at(plan, place), plan.request.shape,
                       [&](const plan::Block& other, plan::Access access) {
                         if (access == (reads ? plan::Access::write : plan::Access::read)) return;
                         found = found || (share_content(other, block) && share_bytes(plan, other, block));
                       });
  return found;
}

// Whether something after the operation reads what it writes to `block`, or it is a result.
inline bool is_read_later(plan::LoweredPlan& plan, OperationPlace writer, const plan::Block& block) {
  if (block.buffer == plan::BufferId::home) return true;
  for (size_t i = writer.index + 1; i < phase_at(plan, writer.phase).operations.size(); ++i) {
    if (touches(plan, {writer.phase, i}, block, true)) return true;
  }
  if (block.buffer != plan::BufferId::saved) return false;
  for (const PhasePlace later : phase_places(plan)) {
    if (later.rank != writer.phase.rank || later.kind <= writer.phase.kind) continue;
    for (size_t i = 0; i < phase_at(plan, later).operations.size(); ++i) {
      if (touches(plan, {later, i}, block, true)) return true;
    }
  }
  return false;
}

// Whether something before the operation has put the same rows there.
inline bool was_written_before(plan::LoweredPlan& plan, OperationPlace writer, const plan::Block& block) {
  for (size_t i = 0; i < writer.index; ++i) {
    if (touches(plan, {writer.phase, i}, block, false)) return true;
  }
  return false;
}

// Damage to a copy may be harmless: a relaying strategy unpacks rows that only some ranks read, and packs rows again
// where they have arrived.
inline bool is_dead(plan::LoweredPlan& plan, OperationPlace place, const plan::BlockPair& pair) {
  if (!std::holds_alternative<plan::Copy>(operation_at(plan, place).body)) return false;
  return !is_read_later(plan, place, pair.to) || was_written_before(plan, place, pair.to);
}

inline bool is_dead(plan::LoweredPlan& plan, OperationPlace place) {
  const plan::Operation& operation = operation_at(plan, place);
  bool empty = true;
  plan::for_each_block(operation, plan.request.shape, [&empty](const plan::Block&, plan::Access) { empty = false; });
  if (empty) return true;
  const auto* copy = std::get_if<plan::Copy>(&operation.body);
  return copy != nullptr && std::all_of(copy->items.begin(), copy->items.end(),
                                        [&](const plan::BlockPair& pair) { return is_dead(plan, place, pair); });
}

// All blocks where damage is harm.
inline std::vector<BlockPlace> live_blocks(plan::LoweredPlan& plan) {
  std::vector<BlockPlace> places;
  for (const PhasePlace phase : phase_places(plan)) {
    for (size_t i = 0; i < phase_at(plan, phase).operations.size(); ++i) {
      const OperationPlace at{phase, i};
      std::vector<const plan::Block*> dead;
      if (auto* copy = std::get_if<plan::Copy>(&operation_at(plan, at).body)) {
        for (const plan::BlockPair& pair : copy->items) {
          if (is_dead(plan, at, pair)) dead.push_back(&pair.to);
        }
      }
      for (const BlockPlace& place : blocks_of(plan, at)) {
        if (std::find(dead.begin(), dead.end(), place.block) == dead.end()) places.push_back(place);
      }
    }
  }
  return places;
}

}  // namespace evenspan::test
