// Summarize and SummarizeGradient: what a part of a linear layer does to the state that comes in, forward, and to the
// gradient that comes in at its end, backward.
#pragma once

#include <optional>
#include <vector>

#include "evenspan/plan/operation/linear_rows.h"

namespace evenspan::plan {

struct PartSummary {
  Part part;
  Block summary;                    // state and final_state where nothing comes in at the part's begin
  std::optional<Block> transition;  // of the part
  friend bool operator==(const PartSummary&, const PartSummary&) = default;
};

struct Summarize {
  static constexpr OperationTraits kTraits{"summarize", Layers::linear, Passes::forward};
  std::vector<PartSummary> items;
  friend bool operator==(const Summarize&, const Summarize&) = default;

  template <class Fields, class Item>
  static void visit(Fields& fields, Item& item) {
    fields.part(item.part, kMapUses);
    fields.sign("->");
    fields.block(item.summary, Access::write);
    fields.optional("*", item.transition, Access::write);
  }
};

// The transition of a part is known from forward.
struct PartGradientSummary {
  Part part;
  Block summary;  // grad_state and grad_initial_state where nothing comes in at the part's end
  friend bool operator==(const PartGradientSummary&, const PartGradientSummary&) = default;
};

struct SummarizeGradient {
  static constexpr OperationTraits kTraits{"summarize_gradient", Layers::linear, Passes::backward};
  std::vector<PartGradientSummary> items;
  friend bool operator==(const SummarizeGradient&, const SummarizeGradient&) = default;

  template <class Fields, class Item>
  static void visit(Fields& fields, Item& item) {
    fields.part(item.part, kGradientMapUses);
    fields.sign("->");
    fields.block(item.summary, Access::write);
  }
};

}  // namespace evenspan::plan
