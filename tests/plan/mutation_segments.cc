// Damage to segments, to what they see and to what they add up to.
#include "plan/mutation_kinds.h"

namespace evenspan::test {
namespace {

using namespace plan;  // NOLINT

// A segment of either direction.
struct SegmentPlace {
  OperationPlace operation;
  size_t index;
  Segment* segment;
  Block* output;
  Block* lse;
  ForwardSegment* forward;    // null in backward
  BackwardSegment* gradient;  // null in forward
};

std::vector<SegmentPlace> segment_places(LoweredPlan& plan) {
  std::vector<SegmentPlace> places;
  for (const OperationPlace at : places_of<Attend>(plan, [](const Attend&, OperationPlace) { return true; })) {
    auto& segments = std::get<Attend>(operation_at(plan, at).body).items;
    for (size_t i = 0; i < segments.size(); ++i) {
      places.push_back({at, i, &segments[i], &segments[i].output, &segments[i].lse, &segments[i], nullptr});
    }
  }
  for (const OperationPlace at :
       places_of<AttendGradient>(plan, [](const AttendGradient&, OperationPlace) { return true; })) {
    auto& segments = std::get<AttendGradient>(operation_at(plan, at).body).items;
    for (size_t i = 0; i < segments.size(); ++i) {
      places.push_back({at, i, &segments[i], &segments[i].output, &segments[i].lse, nullptr, &segments[i]});
    }
  }
  return places;
}

template <class F>
bool change_segment(Dice& dice, LoweredPlan& plan, F&& change) {
  auto places = segment_places(plan);
  while (!places.empty()) {
    const size_t i = dice.below(places.size());
    if (change(places[i])) return true;
    places.erase(places.begin() + static_cast<std::ptrdiff_t>(i));
  }
  return false;
}

// The pairs that a segment sees, or -1 for one that no kernel takes.
int64_t pairs_of(const Segment& segment) {
  const Tile tile{segment.query.document, segment.query.rows, segment.key.rows, segment.kind, segment.query.heads};
  if (segment.kind == TileKind::causal && tile.queries != tile.keys) return -1;
  const bool windowed = segment.kind == TileKind::window || segment.kind == TileKind::band;
  if (windowed && segment.window < 1) return -1;
  int64_t pairs = 0;
  for (int64_t q = tile.queries.begin; q < tile.queries.end; ++q) {
    const Span keys = tile_keys(tile, q, segment.window);
    if (keys.empty()) return -1;
    pairs += keys.size();
  }
  return pairs;
}

bool change_kind(Dice& dice, LoweredPlan& plan) {
  return change_segment(dice, plan, [&](const SegmentPlace& at) {
    const int64_t pairs = pairs_of(*at.segment);
    const TileKind kind = at.segment->kind;
    at.segment->kind = static_cast<TileKind>((static_cast<size_t>(kind) + 1 + dice.below(3)) % 4);
    if (pairs_of(*at.segment) != pairs) return true;
    at.segment->kind = kind;  // the same pairs by another name
    return false;
  });
}

bool change_window(Dice& dice, LoweredPlan& plan) {
  return change_segment(dice, plan, [&](const SegmentPlace& at) {
    const int64_t pairs = pairs_of(*at.segment);
    const int64_t window = at.segment->window;
    at.segment->window += dice.coin() ? 1 : -1;
    if (pairs_of(*at.segment) != pairs) return true;
    at.segment->window = window;
    return false;
  });
}

template <class Body>
void drop_or_double(LoweredPlan& plan, const SegmentPlace& at, bool drop) {
  auto& segments = std::get<Body>(operation_at(plan, at.operation).body).items;
  const auto segment = segments[at.index];
  if (drop) {
    segments.erase(segments.begin() + static_cast<std::ptrdiff_t>(at.index));
  } else {
    segments.push_back(segment);
  }
}

bool drop_segment(Dice& dice, LoweredPlan& plan) {
  return change_segment(dice, plan, [&](const SegmentPlace& at) {
    at.gradient ? drop_or_double<AttendGradient>(plan, at, true) : drop_or_double<Attend>(plan, at, true);
    return true;
  });
}

bool double_segment(Dice& dice, LoweredPlan& plan) {
  return change_segment(dice, plan, [&](const SegmentPlace& at) {
    at.gradient ? drop_or_double<AttendGradient>(plan, at, false) : drop_or_double<Attend>(plan, at, false);
    return true;
  });
}

void cut_rows(const AttentionShape& shape, Span rows, std::initializer_list<Block*> blocks) {
  for (Block* block : blocks) *block = sub_block(*block, rows, block->heads, shape);
}

bool shrink_keys(Dice& dice, LoweredPlan& plan) {
  return change_segment(dice, plan, [&](const SegmentPlace& at) {
    Segment& segment = *at.segment;
    Span rows = segment.key.rows;
    if (rows.size() < 2) return false;
    (dice.coin() ? rows.begin += 1 : rows.end -= 1);
    Segment shrunk = segment;
    cut_rows(plan.request.shape, rows, {&shrunk.key, &shrunk.value});
    if (pairs_of(shrunk) == pairs_of(segment)) return false;
    segment = shrunk;
    if (at.gradient) cut_rows(plan.request.shape, rows, {&at.gradient->grad_key.block, &at.gradient->grad_value.block});
    return true;
  });
}

bool shrink_queries(Dice& dice, LoweredPlan& plan) {
  return change_segment(dice, plan, [&](const SegmentPlace& at) {
    Segment& segment = *at.segment;
    Span rows = segment.query.rows;
    if (rows.size() < 2) return false;
    (dice.coin() ? rows.begin += 1 : rows.end -= 1);
    cut_rows(plan.request.shape, rows, {&segment.query, at.output, at.lse});
    if (at.gradient) cut_rows(plan.request.shape, rows, {&at.gradient->grad_output, &at.gradient->grad_query.block});
    return true;
  });
}

bool drop_heads_of_segment(Dice& dice, LoweredPlan& plan) {
  return change_segment(dice, plan, [&](const SegmentPlace& at) {
    Segment& segment = *at.segment;
    const HeadRange queries{segment.query.heads.begin + plan.request.shape.group_size(), segment.query.heads.end};
    if (queries.empty() || segment.key.heads.size() < 2) return false;
    const HeadRange keys{segment.key.heads.begin + 1, segment.key.heads.end};
    const auto cut = [&](Block& block, HeadRange heads) {
      block = sub_block(block, block.rows, heads, plan.request.shape);
    };
    for (Block* block : {&segment.query, at.output, at.lse}) cut(*block, queries);
    for (Block* block : {&segment.key, &segment.value}) cut(*block, keys);
    if (at.gradient) {
      cut(at.gradient->grad_output, queries);
      cut(at.gradient->grad_query.block, queries);
      cut(at.gradient->grad_key.block, keys);
      cut(at.gradient->grad_value.block, keys);
    }
    return true;
  });
}

// Whether something before the segment has put a contribution where `block` is; `cleared` counts as one if it is asked
// for.
bool has_content(LoweredPlan& plan, const SegmentPlace& at, const Block& block, bool cleared) {
  const auto holds = [&](const Block& other) { return share_content(other, block) && share_bytes(plan, other, block); };
  for (size_t i = 0; i < at.operation.index; ++i) {
    const OperationPlace before{at.operation.phase, i};
    if (!cleared && std::holds_alternative<Clear>(operation_at(plan, before).body)) continue;
    for (const BlockPlace& place : blocks_of(plan, before)) {
      if (place.access != Access::read && holds(*place.block)) return true;
    }
  }
  for (const SegmentPlace& other : segment_places(plan)) {
    if (other.segment == at.segment) break;  // segments of one operation come in order
    const bool same = other.operation.phase == at.operation.phase && other.operation.index == at.operation.index;
    if (!same) continue;
    if (other.forward && holds(*other.output)) return true;
    if (!other.gradient) continue;
    for (const GradientTarget* target :
         {&other.gradient->grad_query, &other.gradient->grad_key, &other.gradient->grad_value}) {
      if (holds(target->block)) return true;
    }
  }
  return false;
}

bool overwrite_instead_of_fold(Dice& dice, LoweredPlan& plan) {
  return change_segment(dice, plan, [&](const SegmentPlace& at) {
    if (!at.forward || !at.forward->fold || !has_content(plan, at, *at.output, false)) return false;
    at.forward->fold = false;
    return true;
  });
}

bool fold_instead_of_overwrite(Dice& dice, LoweredPlan& plan) {
  return change_segment(dice, plan, [&](const SegmentPlace& at) {
    if (!at.forward || at.forward->fold || has_content(plan, at, *at.output, true)) return false;
    at.forward->fold = true;
    return true;
  });
}

bool flip_add(Dice& dice, LoweredPlan& plan, bool from) {
  return change_segment(dice, plan, [&](const SegmentPlace& at) {
    if (!at.gradient) return false;
    std::vector<GradientTarget*> targets;
    for (GradientTarget* target : {&at.gradient->grad_query, &at.gradient->grad_key, &at.gradient->grad_value}) {
      // Content is lost, or there is none to add to.
      if (target->add == from && has_content(plan, at, target->block, !from) == from) targets.push_back(target);
    }
    if (targets.empty()) return false;
    dice.one_of(targets)->add = !from;
    return true;
  });
}

bool overwrite_instead_of_add(Dice& dice, LoweredPlan& plan) { return flip_add(dice, plan, true); }
bool add_instead_of_overwrite(Dice& dice, LoweredPlan& plan) { return flip_add(dice, plan, false); }

bool swap_keys_and_values(Dice& dice, LoweredPlan& plan) {
  return change_segment(dice, plan,
                        [&](const SegmentPlace& at) { return std::swap(at.segment->key, at.segment->value), true; });
}

bool swap_gradients(Dice& dice, LoweredPlan& plan) {
  return change_segment(dice, plan, [&](const SegmentPlace& at) {
    if (!at.gradient || at.gradient->grad_key.block.buffer == BufferId::home) return false;
    if (at.gradient->grad_key.block.buffer != at.gradient->grad_value.block.buffer) return false;
    std::swap(at.gradient->grad_key.block.offset_bytes, at.gradient->grad_value.block.offset_bytes);
    return true;
  });
}

constexpr Mutation kSegmentMutations[] = {
    {"segment kind changed", change_kind},
    {"window changed", change_window},
    {"segment dropped", drop_segment},
    {"segment doubled", double_segment},
    {"keys of a segment shrunk", shrink_keys},
    {"queries of a segment shrunk", shrink_queries},
    {"heads of a segment dropped", drop_heads_of_segment},
    {"fold turned into overwrite", overwrite_instead_of_fold},
    {"overwrite turned into fold", fold_instead_of_overwrite},
    {"add turned into overwrite", overwrite_instead_of_add},
    {"overwrite turned into add", add_instead_of_overwrite},
    {"keys and values swapped", swap_keys_and_values},
    {"gradients of keys and values swapped", swap_gradients},
};

}  // namespace

std::span<const Mutation> segment_mutations() { return kSegmentMutations; }

}  // namespace evenspan::test
