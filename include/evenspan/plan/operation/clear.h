// Clear: blocks become the empty partial, outputs and gradients 0, lse minus infinity.
#pragma once

#include <vector>

#include "evenspan/plan/operation/traits.h"

namespace evenspan::plan {

struct Clear {
  static constexpr OperationTraits kTraits{"clear", Layers::softmax};
  std::vector<Block> items;
  friend bool operator==(const Clear&, const Clear&) = default;

  template <class Fields, class Item>
  static void visit(Fields& fields, Item& block) {
    fields.block(block, Access::write);
  }
};

}  // namespace evenspan::plan
