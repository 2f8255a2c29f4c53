// Intra and IntraGradient: what of a part of a linear layer needs nothing from other parts, and of its gradients
// nothing but the state before it.
#pragma once

#include <optional>
#include <vector>

#include "evenspan/plan/operation/linear_rows.h"

namespace evenspan::plan {

struct IntraPart {
  Part part;
  bool pending = false;  // an Apply completes the part
  friend bool operator==(const IntraPart&, const IntraPart&) = default;
};

struct Intra {
  static constexpr OperationTraits kTraits{"intra", Layers::linear, Passes::forward};
  std::vector<IntraPart> items;
  friend bool operator==(const Intra&, const Intra&) = default;

  template <class Fields, class Item>
  static void visit(Fields& fields, Item& item) {
    fields.part(item.part, output_uses(Access::write));
    fields.word(item.pending, "pending");
  }
};

struct IntraGradientPart {
  Part part;
  bool pending = false;        // an ApplyGradient completes the part
  std::optional<Block> state;  // what the part started from; none: 0
  friend bool operator==(const IntraGradientPart&, const IntraGradientPart&) = default;
};

struct IntraGradient {
  static constexpr OperationTraits kTraits{"intra_gradient", Layers::linear, Passes::backward};
  std::vector<IntraGradientPart> items;
  friend bool operator==(const IntraGradient&, const IntraGradient&) = default;

  template <class Fields, class Item>
  static void visit(Fields& fields, Item& item) {
    fields.part(item.part, gradient_uses(Access::write));
    fields.word(item.pending, "pending");
    fields.optional("<-", item.state, Access::read);
  }
};

}  // namespace evenspan::plan
