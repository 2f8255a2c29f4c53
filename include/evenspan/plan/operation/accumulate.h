// Accumulate: to += from, of gradients, in the precision of `to`, in this order.
#pragma once

#include <vector>

#include "evenspan/plan/operation/traits.h"

namespace evenspan::plan {

struct Accumulate {
  static constexpr OperationTraits kTraits{"accumulate", Layers::softmax, Passes::backward};
  std::vector<BlockPair> items;
  friend bool operator==(const Accumulate&, const Accumulate&) = default;

  template <class Fields, class Item>
  static void visit(Fields& fields, Item& pair) {
    fields.block(pair.to, Access::update);
    fields.sign("+=");
    fields.block(pair.from, Access::read);
  }
};

}  // namespace evenspan::plan
