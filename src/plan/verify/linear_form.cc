#include "plan/verify/linear_form.h"

#include <algorithm>

namespace evenspan::plan::proofs {

void LinearForm::check_state(const Block& block, Access access) const {
  const int64_t length = length_of(block.document);
  if (!is_state(block.tensor) || !shape_.is_linear()) {
    refute(Proof::dataflow, site_, describe(block), " in the program of a ",
           shape_.is_linear() ? "linear layer, whose blocks are of states" : "softmax layer");
  }
  const Span rows = block.rows;
  const bool inside = rows.begin >= 0 && rows.begin <= rows.end && rows.end <= length;
  const bool home = block.buffer == BufferId::home;
  const bool whole = rows == Span{0, length};
  bool named = inside && !rows.empty();
  switch (block.tensor) {
    case TensorName::state:
      named = inside && rows.begin == 0 && rows.empty() == home && (!home || shape_.state.initial);
      break;
    case TensorName::grad_state:
      named = inside && rows.end == length && rows.empty() == home && (!home || shape_.state.final);
      break;
    case TensorName::final_state:
      named = whole && home && shape_.state.final;
      break;
    case TensorName::grad_initial_state:
      named = whole && home && shape_.state.initial;
      break;
    case TensorName::transition:
      named = named && !home && shape_.state.transition() != Transition::known;
      break;
    default:
      named = named && !home;
  }
  if (!named) refute(Proof::dataflow, site_, describe(block), " is no state of a document of ", length, " tokens");
  const bool backward_only = block.tensor >= TensorName::grad_state;
  const bool forward_only = block.tensor == TensorName::summary || block.tensor == TensorName::final_state;
  if ((backward_only && !site_.in_backward()) || (forward_only && site_.in_backward()) ||
      (home && access != Access::read && is_given_state(block.tensor))) {
    refute(Proof::dataflow, site_, describe(block), " is ", access == Access::read ? "read" : "written", ", which the ",
           to_string(site_.phase), " phase must not");
  }
  if (block.heads.begin < 0 || block.heads.empty() || block.heads.end > shape_.num_heads) {
    refute(Proof::dataflow, site_, describe(block), ": heads are empty or outside the layer's ", shape_.num_heads);
  }
  if (block.precision != Precision::accumulation) {
    refute(Proof::dataflow, site_, describe(block), ": states have the accumulation type");
  }
}

void LinearForm::check_home(const Block& block) const {
  const int64_t offset = (int64_t{block.document} * shape_.num_heads + block.heads.begin) *
                         sizes_.head_bytes(block.tensor, block.precision);
  if (block.offset_bytes != offset) {
    refute(Proof::memory, site_, describe(block), ": its home is at byte ", offset);
  }
}

void LinearForm::check_part(const Part& part) const {
  if (part.document < 0 || part.document >= plan_.request.documents.size() || part.rows.empty() ||
      homes_.row_of(site_.rank, part.document, part.rows) != part.home_row) {
    refute(Proof::memory, site_, "document ", part.document, ", rows ", describe(part.rows), " from home row ",
           part.home_row, ": the rank is not home to them there");
  }
}

void LinearForm::check_same_rows(const Block& block, DocumentId document, Span rows, HeadRange heads,
                                 std::initializer_list<TensorName> tensors) const {
  if (std::find(tensors.begin(), tensors.end(), block.tensor) != tensors.end() && block.document == document &&
      block.rows == rows && block.heads == heads) {
    return;
  }
  refute(Proof::dataflow, site_, describe(block), " stands for rows ", describe(rows), ", heads ", describe(heads),
         " of document ", document);
}

void LinearForm::check(const PartSummary& summary) const {
  const Part& part = summary.part;
  const bool first = part.rows.begin == 0 && !shape_.state.initial;
  check_same_rows(summary.summary, part.document, part.rows, all_heads(),
                  first ? std::initializer_list<TensorName>{TensorName::state, TensorName::final_state}
                        : std::initializer_list<TensorName>{TensorName::summary});
  if (!summary.transition) return;
  check_same_rows(*summary.transition, part.document, part.rows, all_heads(), {TensorName::transition});
}

void LinearForm::check(const PartGradientSummary& summary) const {
  const Part& part = summary.part;
  const bool last = part.rows.end == length_of(part.document) && !shape_.state.final;
  check_same_rows(summary.summary, part.document, part.rows, all_heads(),
                  last ? std::initializer_list<TensorName>{TensorName::grad_state, TensorName::grad_initial_state}
                       : std::initializer_list<TensorName>{TensorName::grad_summary});
}

void LinearForm::check(const Composition& c) const {
  const bool backward = site_.in_backward();
  const TensorName summary = backward ? TensorName::grad_summary : TensorName::summary;
  const TensorName state = backward ? TensorName::grad_state : TensorName::state;
  const TensorName result = backward ? TensorName::grad_initial_state : TensorName::final_state;
  const DocumentId document = c.near.document;
  const bool adjoin = backward ? c.near.rows.end == c.far.rows.begin : c.far.rows.end == c.near.rows.begin;
  if (!adjoin || c.far.document != document) {
    refute(Proof::dataflow, site_, describe(c.near), " does not adjoin ", describe(c.far));
  }
  const Span both = backward ? Span{c.near.rows.begin, c.far.rows.end} : Span{c.far.rows.begin, c.near.rows.end};
  const HeadRange heads = c.near.heads;
  check_same_rows(c.near, document, c.near.rows, heads, {summary});
  check_same_rows(c.far, document, c.far.rows, heads, {state, summary});
  const bool of_state = c.far.tensor == state;
  if (of_state) {
    check_same_rows(c.to, document, both, heads, {state, result});
  } else {
    check_same_rows(c.to, document, both, heads, {summary});
  }
  const auto check_transition = [&](const std::optional<Block>& block, Span rows, bool wanted) {
    if (block.has_value() != (wanted && shape_.state.transition() != Transition::known)) {
      refute(Proof::dataflow, site_, describe(c.to), block ? " has a transition too many" : " lacks a transition");
    }
    if (block) check_same_rows(*block, document, rows, heads, {TensorName::transition});
  };
  check_transition(c.near_transition, c.near.rows, true);
  check_transition(c.far_transition, c.far.rows, !of_state);
  check_transition(c.to_transition, both, !of_state);
}

void LinearForm::check_started_from(const Part& part, const std::optional<Block>& state) const {
  if (state.has_value() != (part.rows.begin > 0 || shape_.state.initial)) {
    refute(Proof::dataflow, site_, "document ", part.document, ", rows ", describe(part.rows),
           ": the state before them is missing, or is there without need");
  }
  if (state) check_same_rows(*state, part.document, {0, part.rows.begin}, all_heads(), {TensorName::state});
}

void LinearForm::check(const ApplyGradientPart& apply) const {
  const Part& part = apply.part;
  check_started_from(part, apply.state);
  check_same_rows(apply.grad_state, part.document, {part.rows.end, length_of(part.document)}, all_heads(),
                  {TensorName::grad_state});
}

}  // namespace evenspan::plan::proofs
