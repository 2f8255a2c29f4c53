// Attend and AttendGradient: tiles of softmax attention, forward and backward. All tiles of an operation are one
// batched kernel call: none writes what another reads.
#pragma once

#include <vector>

#include "evenspan/plan/operation/traits.h"
#include "evenspan/plan/tile.h"

namespace evenspan::plan {

// The operands of one tile: `query` has the rows of its queries, `key` and `value` those of its keys.
struct Segment {
  TileKind kind = TileKind::full;
  int64_t window = 0;  // of window and band
  Block query, key, value;
  friend bool operator==(const Segment&, const Segment&) = default;

  template <class Fields, class Item>
  static void visit(Fields& fields, Item& segment) {
    fields.tile(segment.kind, segment.window);
    fields.block(segment.query, Access::read);
    fields.block(segment.key, Access::read);
    fields.block(segment.value, Access::read);
  }
};

// Attention of a tile's queries over its keys.
struct ForwardSegment : Segment {
  Block output, lse;
  bool fold = false;  // merge into what output and lse hold; false: overwrite
  friend bool operator==(const ForwardSegment&, const ForwardSegment&) = default;
};

struct Attend {
  static constexpr OperationTraits kTraits{"attend", Layers::softmax, Passes::forward};
  std::vector<ForwardSegment> items;
  friend bool operator==(const Attend&, const Attend&) = default;

  template <class Fields, class Item>
  static void visit(Fields& fields, Item& segment) {
    Segment::visit(fields, segment);
    fields.choice(segment.fold, "->", "+>");
    fields.block(segment.output, segment.fold ? Access::update : Access::write);
    fields.block(segment.lse, segment.fold ? Access::update : Access::write);
  }
};

// A gradient that a segment writes or adds to.
struct GradientTarget {
  Block block;
  bool add = false;
  friend bool operator==(const GradientTarget&, const GradientTarget&) = default;
};

// The gradients of a tile's operands.
struct BackwardSegment : Segment {
  Block output, lse;  // final; `output` may be a block of delta instead
  Block grad_output;
  GradientTarget grad_query, grad_key, grad_value;
  friend bool operator==(const BackwardSegment&, const BackwardSegment&) = default;
};

struct AttendGradient {
  static constexpr OperationTraits kTraits{"attend_gradient", Layers::softmax, Passes::backward};
  std::vector<BackwardSegment> items;
  friend bool operator==(const AttendGradient&, const AttendGradient&) = default;

  template <class Fields, class Item>
  static void visit(Fields& fields, Item& segment) {
    Segment::visit(fields, segment);
    fields.sign("<-");
    fields.block(segment.output, Access::read);
    fields.block(segment.lse, Access::read);
    fields.block(segment.grad_output, Access::read);
    for (auto* target : {&segment.grad_query, &segment.grad_key, &segment.grad_value}) {
      fields.choice(target->add, "->", "+>");
      fields.block(target->block, target->add ? Access::update : Access::write);
    }
  }
};

}  // namespace evenspan::plan
