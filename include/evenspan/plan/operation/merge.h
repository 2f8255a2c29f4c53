// Merge: partial results of the same rows and heads made one, in this order, in the precision of `output` and of lse.
#pragma once

#include <vector>

#include "evenspan/plan/operation/traits.h"

namespace evenspan::plan {

// Folds a partial result into another: (output, lse) += (from_output, from_lse), all of the same rows and heads.
struct PartialPair {
  Block output, lse;
  Block from_output, from_lse;  // of at least one segment
  friend bool operator==(const PartialPair&, const PartialPair&) = default;
};

struct Merge {
  static constexpr OperationTraits kTraits{"merge", Layers::softmax, Passes::forward};
  std::vector<PartialPair> items;
  friend bool operator==(const Merge&, const Merge&) = default;

  template <class Fields, class Item>
  static void visit(Fields& fields, Item& pair) {
    fields.block(pair.output, Access::update);
    fields.block(pair.lse, Access::update);
    fields.sign("+=");
    fields.block(pair.from_output, Access::read);
    fields.block(pair.from_lse, Access::read);
  }
};

}  // namespace evenspan::plan
