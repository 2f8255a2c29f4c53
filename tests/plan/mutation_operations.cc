// Damage to operations and waits.
#include "plan/mutation_kinds.h"

namespace evenspan::test {
namespace {

using namespace plan;  // NOLINT

std::vector<OperationPlace> live_operations(LoweredPlan& plan) {
  std::vector<OperationPlace> places;
  for (const PhasePlace phase : phase_places(plan)) {
    for (size_t i = 0; i < phase_at(plan, phase).operations.size(); ++i) {
      if (!is_dead(plan, {phase, i})) places.push_back({phase, i});
    }
  }
  return places;
}

bool drop_operation(Dice& dice, LoweredPlan& plan) {
  auto places = live_operations(plan);
  if (places.empty()) return false;
  const OperationPlace place = dice.one_of(places);
  auto& operations = phase_at(plan, place.phase).operations;
  operations.erase(operations.begin() + static_cast<std::ptrdiff_t>(place.index));
  return true;
}

template <class Body>
bool drop_body(Dice& dice, LoweredPlan& plan) {
  auto places = places_of<Body>(plan, [&](const Body&, OperationPlace at) { return !is_dead(plan, at); });
  if (places.empty()) return false;
  const OperationPlace place = dice.one_of(places);
  auto& operations = phase_at(plan, place.phase).operations;
  operations.erase(operations.begin() + static_cast<std::ptrdiff_t>(place.index));
  return true;
}

// Copies and clears may be repeated.
template <class Body>
bool double_body(Dice& dice, LoweredPlan& plan) {
  auto places = places_of<Body>(plan, [&](const Body&, OperationPlace at) { return !is_dead(plan, at); });
  if (places.empty()) return false;
  const OperationPlace place = dice.one_of(places);
  auto& operations = phase_at(plan, place.phase).operations;
  const Operation copy = operations[place.index];
  operations.insert(operations.begin() + static_cast<std::ptrdiff_t>(place.index), copy);
  return true;
}

// A writer and a later reader of what it wrote, with no other writer between.
struct Dependence {
  PhasePlace phase;
  size_t writer, reader;
};

std::vector<Dependence> dependences(LoweredPlan& plan) {
  std::vector<Dependence> found;
  for (const PhasePlace phase : phase_places(plan)) {
    const auto blocks = blocks_of(plan, phase);
    for (size_t reader = 0; reader < blocks.size(); ++reader) {
      for (const BlockPlace& read : blocks[reader]) {
        if (read.access != Access::read) continue;
        for (size_t writer = reader; writer-- > 0;) {
          const bool feeds = std::any_of(blocks[writer].begin(), blocks[writer].end(), [&](const BlockPlace& write) {
            return write.access != Access::read && share_content(*write.block, *read.block) &&
                   share_bytes(plan, *write.block, *read.block);
          });
          if (!feeds) continue;
          found.push_back(Dependence{phase, writer, reader});
          break;
        }
      }
    }
  }
  return found;
}

bool move_earlier(Dice& dice, LoweredPlan& plan) {
  auto places = dependences(plan);
  if (places.empty()) return false;
  const auto [phase, writer, reader] = dice.one_of(places);
  const auto first = phase_at(plan, phase).operations.begin();
  std::rotate(first + static_cast<std::ptrdiff_t>(writer), first + static_cast<std::ptrdiff_t>(reader),
              first + static_cast<std::ptrdiff_t>(reader) + 1);
  return true;
}

bool move_later(Dice& dice, LoweredPlan& plan) {
  auto places = dependences(plan);
  if (places.empty()) return false;
  const auto [phase, writer, reader] = dice.one_of(places);
  const auto first = phase_at(plan, phase).operations.begin();
  std::rotate(first + static_cast<std::ptrdiff_t>(writer), first + static_cast<std::ptrdiff_t>(writer) + 1,
              first + static_cast<std::ptrdiff_t>(reader) + 1);
  return true;
}

bool truncate(Dice& dice, LoweredPlan& plan) {
  auto places = live_operations(plan);
  if (places.empty()) return false;
  const OperationPlace place = dice.one_of(places);
  phase_at(plan, place.phase).operations.resize(place.index);
  return true;
}

bool swap_programs(Dice& dice, LoweredPlan& plan) {
  if (plan.programs.size() < 2) return false;
  const size_t a = dice.below(plan.programs.size());
  const size_t b = dice.below(plan.programs.size());
  if (plan.programs[a] == plan.programs[b]) return false;
  std::swap(plan.programs[a], plan.programs[b]);
  return true;
}

// The first operation that waits for the exchange needs what it brings, or overwrites what it takes.
bool needs_wait(LoweredPlan& plan, OperationPlace waiter, Event event) {
  const auto& operations = phase_at(plan, waiter.phase).operations;
  const Operation* started = nullptr;
  for (size_t i = 0; i < waiter.index; ++i) {
    if (operations[i].signals == event) started = &operations[i];
    if (std::count(operations[i].waits.begin(), operations[i].waits.end(), event) > 0) return false;
  }
  if (started == nullptr) return false;
  bool needs = false;
  for (const BlockPlace& place : blocks_of(plan, waiter)) {
    for_each_block(*started, plan.request.shape, [&](const Block& block, Access access) {
      const bool conflict = access != Access::read || place.access != Access::read;
      needs = needs || (conflict && share_bytes(plan, block, *place.block));
    });
  }
  return needs;
}

bool remove_wait(Dice& dice, LoweredPlan& plan) {
  struct Place {
    OperationPlace operation;
    Event event;
  };
  std::vector<Place> places;
  for (const PhasePlace phase : phase_places(plan)) {
    const auto& operations = phase_at(plan, phase).operations;
    for (size_t i = 0; i < operations.size(); ++i) {
      for (const Event event : operations[i].waits) {
        if (needs_wait(plan, {phase, i}, event)) places.push_back({{phase, i}, event});
      }
    }
  }
  if (places.empty()) return false;
  const auto [place, event] = dice.one_of(places);
  std::erase(operation_at(plan, place).waits, event);
  return true;
}

bool wait_for_another(Dice& dice, LoweredPlan& plan) {
  std::vector<OperationPlace> places;
  for (const PhasePlace phase : phase_places(plan)) {
    const auto& operations = phase_at(plan, phase).operations;
    for (size_t i = 0; i < operations.size(); ++i) places.push_back({phase, i});
  }
  if (places.empty()) return false;
  const OperationPlace place = dice.one_of(places);
  // An exchange that starts here or later, or none at all.
  Event event = 1 << 20;
  const auto& operations = phase_at(plan, place.phase).operations;
  for (size_t i = place.index; i < operations.size() && dice.coin(); ++i) {
    if (operations[i].signals != kNoEvent) event = operations[i].signals;
  }
  operation_at(plan, place).waits.push_back(event);
  return true;
}

struct PairPlace {
  OperationPlace operation;
  size_t index;
};

template <class Body>
std::vector<PairPlace> live_pairs(LoweredPlan& plan) {
  std::vector<PairPlace> places;
  for (const OperationPlace at : places_of<Body>(plan, [](const Body&, OperationPlace) { return true; })) {
    const auto& pairs = std::get<Body>(operation_at(plan, at).body).items;
    for (size_t i = 0; i < pairs.size(); ++i) {
      if (!is_dead(plan, at, pairs[i])) places.push_back({at, i});
    }
  }
  return places;
}

template <class Body>
bool drop_pair(Dice& dice, LoweredPlan& plan) {
  auto places = live_pairs<Body>(plan);
  if (places.empty()) return false;
  const auto [at, index] = dice.one_of(places);
  auto& pairs = std::get<Body>(operation_at(plan, at).body).items;
  pairs.erase(pairs.begin() + static_cast<std::ptrdiff_t>(index));
  return true;
}

bool double_pair(Dice& dice, LoweredPlan& plan) {
  auto places = live_pairs<Accumulate>(plan);
  if (places.empty()) return false;
  const auto [at, index] = dice.one_of(places);
  auto& pairs = std::get<Accumulate>(operation_at(plan, at).body).items;
  pairs.push_back(BlockPair(pairs[index]));
  return true;
}

bool copy_backwards(Dice& dice, LoweredPlan& plan) {
  auto places = live_pairs<Copy>(plan);
  if (places.empty()) return false;
  const auto [at, index] = dice.one_of(places);
  BlockPair& pair = std::get<Copy>(operation_at(plan, at).body).items[index];
  std::swap(pair.to, pair.from);
  return true;
}

std::vector<PairPlace> merge_places(LoweredPlan& plan) {
  std::vector<PairPlace> places;
  for (const OperationPlace at : places_of<Merge>(plan, [](const Merge&, OperationPlace) { return true; })) {
    for (size_t i = 0; i < std::get<Merge>(operation_at(plan, at).body).items.size(); ++i) places.push_back({at, i});
  }
  return places;
}

// Applies `change(pairs, index)` to a random pair of a merge for which it returns true.
template <class F>
bool change_merge(Dice& dice, LoweredPlan& plan, F&& change) {
  auto places = merge_places(plan);
  while (!places.empty()) {
    const size_t i = dice.below(places.size());
    if (change(std::get<Merge>(operation_at(plan, places[i].operation).body).items, places[i].index)) return true;
    places.erase(places.begin() + static_cast<std::ptrdiff_t>(i));
  }
  return false;
}

bool drop_merge_pair(Dice& dice, LoweredPlan& plan) {
  return change_merge(dice, plan, [](std::vector<PartialPair>& pairs, size_t index) {
    pairs.erase(pairs.begin() + static_cast<std::ptrdiff_t>(index));
    return true;
  });
}

bool double_merge_pair(Dice& dice, LoweredPlan& plan) {
  return change_merge(dice, plan, [](std::vector<PartialPair>& pairs, size_t index) {
    pairs.push_back(PartialPair(pairs[index]));
    return true;
  });
}

// Into itself: the partial that arrived is lost, and the one here counts twice.
bool merge_into_itself(Dice& dice, LoweredPlan& plan) {
  return change_merge(dice, plan, [](std::vector<PartialPair>& pairs, size_t index) {
    pairs[index].from_output = pairs[index].output;
    pairs[index].from_lse = pairs[index].lse;
    return true;
  });
}

bool merge_backwards(Dice& dice, LoweredPlan& plan) {
  return change_merge(dice, plan, [](std::vector<PartialPair>& pairs, size_t index) {
    std::swap(pairs[index].output, pairs[index].from_output);
    std::swap(pairs[index].lse, pairs[index].from_lse);
    return true;
  });
}

// The log-sum-exp of another partial.
bool swap_lses_of_merge(Dice& dice, LoweredPlan& plan) {
  return change_merge(dice, plan, [](std::vector<PartialPair>& pairs, size_t index) {
    std::swap(pairs[index].lse, pairs[index].from_lse);
    return true;
  });
}

// Whether something but a clear has written to the block before.
bool has_partial(LoweredPlan& plan, OperationPlace at, const Block& block) {
  for (size_t i = 0; i < at.index; ++i) {
    const OperationPlace before{at.phase, i};
    if (std::holds_alternative<Clear>(operation_at(plan, before).body)) continue;
    for (const BlockPlace& place : blocks_of(plan, before)) {
      const bool same = share_content(*place.block, block) && share_bytes(plan, *place.block, block);
      if (same && place.access != Access::read) return true;
    }
  }
  return false;
}

bool copy_instead_of_merge(Dice& dice, LoweredPlan& plan) {
  auto places = places_of<Merge>(plan, [&](const Merge& merge, OperationPlace at) {
    return std::any_of(merge.items.begin(), merge.items.end(),
                       [&](const PartialPair& pair) { return has_partial(plan, at, pair.output); });
  });
  if (places.empty()) return false;
  Operation& operation = operation_at(plan, dice.one_of(places));
  Copy copy;
  for (const PartialPair& pair : std::get<Merge>(operation.body).items) {
    copy.items.push_back({pair.output, pair.from_output});
    copy.items.push_back({pair.lse, pair.from_lse});
  }
  operation.body = std::move(copy);
  return true;
}

bool drop_delta_rows(Dice& dice, LoweredPlan& plan) {
  auto places = places_of<Delta>(plan, [](const Delta&, OperationPlace) { return true; });
  if (places.empty()) return false;
  auto& rows = std::get<Delta>(operation_at(plan, dice.one_of(places)).body).items;
  rows.erase(rows.begin() + static_cast<std::ptrdiff_t>(dice.below(rows.size())));
  return true;
}

constexpr Mutation kOperationMutations[] = {
    {"operation dropped", drop_operation},
    {"exchange dropped", drop_body<Exchange>},
    {"copy dropped", drop_body<Copy>},
    {"accumulate dropped", drop_body<Accumulate>},
    {"clear dropped", drop_body<Clear>},
    {"attend dropped", drop_body<Attend>},
    {"attend doubled", double_body<Attend>},
    {"attend gradient doubled", double_body<AttendGradient>},
    {"exchange doubled", double_body<Exchange>},
    {"accumulate doubled", double_body<Accumulate>},
    {"reader moved before its writer", move_earlier},
    {"writer moved behind its reader", move_later},
    {"program truncated", truncate},
    {"programs of two ranks swapped", swap_programs},
    {"wait removed", remove_wait},
    {"wait for an exchange to come", wait_for_another},
    {"pair of a copy dropped", drop_pair<Copy>},
    {"pair of an accumulate dropped", drop_pair<Accumulate>},
    {"pair of an accumulate doubled", double_pair},
    {"copy turned around", copy_backwards},
    {"merge dropped", drop_body<Merge>},
    {"merge doubled", double_body<Merge>},
    {"pair of a merge dropped", drop_merge_pair},
    {"pair of a merge doubled", double_merge_pair},
    {"partial merged into itself", merge_into_itself},
    {"merge turned around", merge_backwards},
    {"log-sum-exps of a merge swapped", swap_lses_of_merge},
    {"merge turned into copy", copy_instead_of_merge},
    {"delta dropped", drop_body<Delta>},
    {"rows of a delta dropped", drop_delta_rows},
};

}  // namespace

std::span<const Mutation> operation_mutations() { return kOperationMutations; }

}  // namespace evenspan::test
