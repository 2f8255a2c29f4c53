// Delta: the row sums of output x grad_output, which are all that a tile away from its finisher needs of the output.
#pragma once

#include <vector>

#include "evenspan/plan/operation/traits.h"

namespace evenspan::plan {

struct DeltaRows {
  Block delta, output, grad_output;  // `output` is final
  friend bool operator==(const DeltaRows&, const DeltaRows&) = default;
};

struct Delta {
  static constexpr OperationTraits kTraits{"delta", Layers::softmax, Passes::backward};
  std::vector<DeltaRows> items;
  friend bool operator==(const Delta&, const Delta&) = default;

  template <class Fields, class Item>
  static void visit(Fields& fields, Item& rows) {
    fields.block(rows.delta, Access::write);
    fields.sign("<-");
    fields.block(rows.output, Access::read);
    fields.block(rows.grad_output, Access::read);
  }
};

}  // namespace evenspan::plan
