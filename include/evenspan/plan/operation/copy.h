// Copy: to = from, converting precision.
#pragma once

#include <vector>

#include "evenspan/plan/operation/traits.h"

namespace evenspan::plan {

struct Copy {
  static constexpr OperationTraits kTraits{"copy"};
  std::vector<BlockPair> items;
  friend bool operator==(const Copy&, const Copy&) = default;

  template <class Fields, class Item>
  static void visit(Fields& fields, Item& pair) {
    fields.block(pair.to, Access::write);
    fields.sign("<-");
    fields.block(pair.from, Access::read);
  }
};

}  // namespace evenspan::plan
