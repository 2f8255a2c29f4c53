// The form of what the programs of linear layers alone have: blocks of states, and operations on parts of documents.
#pragma once

#include <initializer_list>
#include <optional>

#include "plan/verify/homes.h"
#include "plan/verify/proof.h"
#include "plan/visit.h"

namespace evenspan::plan::proofs {

// Each check throws Refuted. REQUIRES: `plan` and `homes` outlive it.
class LinearForm {
 public:
  LinearForm(const LoweredPlan& plan, const Homes& homes)
      : plan_(plan), shape_(plan.request.shape), sizes_(plan.request.shape), homes_(homes) {}

  // Where the following checks are.
  void at(const Site& site) { site_ = site; }

  // All blocks of a linear layer are of states. REQUIRES: the document exists.
  void check_state(const Block& block, Access access) const;
  // REQUIRES: a state at home.
  void check_home(const Block& block) const;

  void check_part(const Part& part) const;
  // The fields of an item whose part and blocks are checked.
  void check(const PartSummary& summary) const;
  void check(const PartGradientSummary& summary) const;
  void check(const Composition& composition) const;
  void check(const IntraPart&) const {}
  void check(const IntraGradientPart& intra) const { check_started_from(intra.part, intra.state); }
  void check(const ApplyPart& apply) const { check_started_from(apply.part, apply.state); }
  void check(const ApplyGradientPart& apply) const;

 private:
  // The state before a part, where there is one.
  void check_started_from(const Part& part, const std::optional<Block>& state) const;
  void check_same_rows(const Block& block, DocumentId document, Span rows, HeadRange heads,
                       std::initializer_list<TensorName> tensors) const;
  HeadRange all_heads() const { return HeadRange{0, shape_.num_heads}; }
  int64_t length_of(DocumentId document) const { return plan_.request.documents[document].length; }

  const LoweredPlan& plan_;
  const AttentionShape& shape_;
  Sizes sizes_;
  const Homes& homes_;
  Site site_;
};

}  // namespace evenspan::plan::proofs
