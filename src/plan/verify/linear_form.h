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
  // REQUIRES: a state in home storage.
  void check_home(const Block& block) const;

  void check_summary(const PartSummary& summary) const;
  void check_composition(const Composition& composition) const;
  // A part, the state before it, and the gradient of the one after it, where the direction wants them; `completes`: of
  // an operation that has all that the part depends on.
  void check_states(const Part& part, const std::optional<Block>& state, const std::optional<Block>& grad_state,
                    bool completes) const;

 private:
  void check_part(const Part& part) const;
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
