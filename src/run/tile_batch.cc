#include "run/tile_batch.h"

#include "plan/visit.h"

namespace evenspan::run {
namespace {

using plan::Block;

struct BlockUse {
  const Block* block;
  bool written;
};

struct Uses {
  std::array<BlockUse, kMostUses> use{};
  size_t size = 0;
};

template <class Body, class Segment>
Uses uses_of(const Segment& segment, const plan::AttentionShape& shape) {
  Uses uses;
  plan::for_each_block_of<Body>(segment, shape, [&](const Block& block, plan::Access access) {
    uses.use[uses.size++] = {&block, access != plan::Access::read};
  });
  return uses;
}

bool same_tile(const plan::Segment& a, const plan::Segment& b) {
  const bool masked = a.kind == plan::TileKind::window || a.kind == plan::TileKind::band;
  const bool same_mask = a.query.rows.begin - a.key.rows.begin == b.query.rows.begin - b.key.rows.begin;
  return a.kind == b.kind && a.window == b.window && (!masked || same_mask);
}
bool same_kernel(const plan::ForwardSegment& a, const plan::ForwardSegment& b) {
  return same_tile(a, b) && a.fold == b.fold;
}
bool same_kernel(const plan::BackwardSegment& a, const plan::BackwardSegment& b) {
  return same_tile(a, b) && a.grad_query.add == b.grad_query.add && a.grad_key.add == b.grad_key.add &&
         a.grad_value.add == b.grad_value.add;
}

bool same_shape(const Block& a, const Block& b) {
  return a.tensor == b.tensor && a.buffer == b.buffer && a.precision == b.precision && a.rows.size() == b.rows.size() &&
         a.heads.size() == b.heads.size() && a.row_stride == b.row_stride;
}

// Whether a block may follow another at this distance in one view: home tensors have their own strides, so whole rows
// apart; what is written must not overlap.
bool steps_evenly(const BlockUse& use, int64_t step, const plan::AttentionShape& shape) {
  const Block& block = *use.block;
  const int64_t row_bytes = block.row_stride * plan::element_bytes(block, shape);
  if (block.buffer == plan::BufferId::home && step % row_bytes != 0) return false;
  return step >= (use.written ? block.rows.size() * row_bytes : 0);
}

template <class Body>
TileBatches<Body> batches(const Body& body, const plan::AttentionShape& shape) {
  TileBatches<Body> result;
  Uses first, previous;
  for (const auto& segment : body.items) {
    const Uses uses = uses_of<Body>(segment, shape);
    const auto step = [&](size_t u) { return uses.use[u].block->offset_bytes - previous.use[u].block->offset_bytes; };
    bool joins = !result.empty() && same_kernel(*result.back().first, segment);
    for (size_t u = 0; joins && u < uses.size; ++u) {
      joins = same_shape(*first.use[u].block, *uses.use[u].block) && steps_evenly(first.use[u], step(u), shape) &&
              (result.back().count == 1 || step(u) == result.back().steps[u]);
    }
    if (!joins) {
      result.push_back({&segment, 1, {}});
      first = uses;
    } else if (result.back().count++ == 1) {
      for (size_t u = 0; u < uses.size; ++u) result.back().steps[u] = step(u);
    }
    previous = uses;
  }
  return result;
}

}  // namespace

TileBatches<plan::Attend> tile_batches(const plan::Attend& attend, const plan::AttentionShape& shape) {
  return batches(attend, shape);
}
TileBatches<plan::AttendGradient> tile_batches(const plan::AttendGradient& attend, const plan::AttentionShape& shape) {
  return batches(attend, shape);
}

}  // namespace evenspan::run
