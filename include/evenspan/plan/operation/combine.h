// Combine and CombineGradient: maps of states composed, in this order.
#pragma once

#include <optional>
#include <vector>

#include "evenspan/plan/operation/traits.h"

namespace evenspan::plan {

// to = M_near far + near, or, where `far` is a summary, the map of both spans. Backward: M_near^T. `near` adjoins `far`
// in the direction of the pass: it begins where `far` ends, in backward it ends where `far` begins.
struct Composition {
  Block to, far, near;  // summary, or for `to` and `far` a state
  std::optional<Block> to_transition, far_transition, near_transition;
  friend bool operator==(const Composition&, const Composition&) = default;

  template <class Fields, class Item>
  static void visit(Fields& fields, Item& item) {
    fields.block(item.to, Access::write);
    fields.sign("<-");
    fields.block(item.far, Access::read);
    fields.sign(",");
    fields.block(item.near, Access::read);
    fields.optional("*", item.near_transition, Access::read);
    fields.optional("and", item.to_transition, Access::write);
    fields.optional("<-", item.far_transition, Access::read);
  }
};

struct Combine {
  static constexpr OperationTraits kTraits{"combine", Layers::linear, Passes::forward};
  std::vector<Composition> items;
  friend bool operator==(const Combine&, const Combine&) = default;

  template <class Fields, class Item>
  static void visit(Fields& fields, Item& item) {
    Composition::visit(fields, item);
  }
};

struct CombineGradient {
  static constexpr OperationTraits kTraits{"combine_gradient", Layers::linear, Passes::backward};
  std::vector<Composition> items;
  friend bool operator==(const CombineGradient&, const CombineGradient&) = default;

  template <class Fields, class Item>
  static void visit(Fields& fields, Item& item) {
    Composition::visit(fields, item);
  }
};

}  // namespace evenspan::plan
