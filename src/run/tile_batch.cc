#include "run/tile_batch.h"

namespace evenspan::run {
namespace {

using plan::Block;
using plan::Segment;
using plan::SegmentGradient;

bool same_kernel(const Segment& a, const Segment& b) {
  const bool masked = a.kind == plan::TileKind::window || a.kind == plan::TileKind::band;
  const bool same_mask = a.query.rows.begin - a.key.rows.begin == b.query.rows.begin - b.key.rows.begin;
  return a.kind == b.kind && a.window == b.window && a.fold == b.fold && (!masked || same_mask);
}
bool same_kernel(const SegmentGradient& a, const SegmentGradient& b) {
  return same_kernel(a.forward, b.forward) && a.grad_query.add == b.grad_query.add &&
         a.grad_key.add == b.grad_key.add && a.grad_value.add == b.grad_value.add;
}

bool same_shape(const Block& a, const Block& b) {
  return a.tensor == b.tensor && a.storage == b.storage && a.precision == b.precision &&
         a.rows.size() == b.rows.size() && a.heads.size() == b.heads.size() && a.row_stride == b.row_stride;
}

// Whether a block may follow another at this distance in one view: home tensors have their own strides, so whole rows
// apart; what is written must not overlap.
bool steps_evenly(const BlockUse& use, int64_t step, const plan::AttentionShape& shape) {
  const Block& block = *use.block;
  const int64_t row_bytes = block.row_stride * plan::element_bytes(block, shape);
  if (block.storage == plan::Storage::home && step % row_bytes != 0) return false;
  return step >= (use.written ? block.rows.size() * row_bytes : 0);
}

template <class S>
std::vector<TileBatch<S>> batches(const std::vector<S>& segments, const plan::AttentionShape& shape) {
  std::vector<TileBatch<S>> result;
  decltype(uses_of(segments.front())) first{}, previous{};
  for (const S& segment : segments) {
    const auto uses = uses_of(segment);
    bool joins = !result.empty() && same_kernel(*result.back().first, segment);
    for (size_t u = 0; joins && u < uses.size(); ++u) {
      const int64_t step = uses[u].block->offset_bytes - previous[u].block->offset_bytes;
      joins = same_shape(*first[u].block, *uses[u].block) && steps_evenly(first[u], step, shape) &&
              (result.back().count == 1 || step == result.back().steps[u]);
    }
    if (!joins) {
      result.push_back({&segment, 1, {}});
      first = uses;
    } else if (result.back().count++ == 1) {
      for (size_t u = 0; u < uses.size(); ++u) {
        result.back().steps[u] = uses[u].block->offset_bytes - previous[u].block->offset_bytes;
      }
    }
    previous = uses;
  }
  return result;
}

}  // namespace

std::array<BlockUse, 5> uses_of(const Segment& s) {
  return {{{&s.query, false}, {&s.key, false}, {&s.value, false}, {&s.output, true}, {&s.lse, true}}};
}

std::array<BlockUse, 9> uses_of(const SegmentGradient& s) {
  return {{{&s.forward.query, false},
           {&s.forward.key, false},
           {&s.forward.value, false},
           {&s.forward.output, false},
           {&s.forward.lse, false},
           {&s.grad_output, false},
           {&s.grad_query.block, true},
           {&s.grad_key.block, true},
           {&s.grad_value.block, true}}};
}

std::vector<ForwardBatch> tile_batches(const std::vector<Segment>& segments, const plan::AttentionShape& shape) {
  return batches(segments, shape);
}
std::vector<BackwardBatch> tile_batches(const std::vector<SegmentGradient>& segments,
                                        const plan::AttentionShape& shape) {
  return batches(segments, shape);
}

}  // namespace evenspan::run
