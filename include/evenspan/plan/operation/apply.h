// Apply and ApplyGradient: parts of a linear layer completed with the state that comes in, and their gradients with the
// gradient of the state that goes out.
#pragma once

#include <optional>
#include <vector>

#include "evenspan/plan/operation/linear_rows.h"

namespace evenspan::plan {

struct ApplyPart {
  Part part;
  Block state;
  friend bool operator==(const ApplyPart&, const ApplyPart&) = default;
};

struct Apply {
  static constexpr OperationTraits kTraits{"apply", Layers::linear, Passes::forward};
  std::vector<ApplyPart> items;
  friend bool operator==(const Apply&, const Apply&) = default;

  template <class Fields, class Item>
  static void visit(Fields& fields, Item& item) {
    fields.part(item.part, output_uses(Access::update));
    fields.sign("<-");
    fields.block(item.state, Access::read);
  }
};

struct ApplyGradientPart {
  Part part;
  std::optional<Block> state;  // what the part started from; none: 0
  Block grad_state;
  friend bool operator==(const ApplyGradientPart&, const ApplyGradientPart&) = default;
};

struct ApplyGradient {
  static constexpr OperationTraits kTraits{"apply_gradient", Layers::linear, Passes::backward};
  std::vector<ApplyGradientPart> items;
  friend bool operator==(const ApplyGradient&, const ApplyGradient&) = default;

  template <class Fields, class Item>
  static void visit(Fields& fields, Item& item) {
    fields.part(item.part, gradient_uses(Access::update));
    fields.optional("<-", item.state, Access::read);
    fields.sign("<=");
    fields.block(item.grad_state, Access::read);
  }
};

}  // namespace evenspan::plan
