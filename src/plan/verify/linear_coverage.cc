// Proofs 1 and 4 of a linear layer's outputs and gradients: every home span is one part of one Intra, and, where
// something comes into it, afterwards of one Apply. A summary of a part is made before its Intra, at most once.
#include <map>

#include "plan/verify/proof.h"

namespace evenspan::plan::proofs {
namespace {

struct Seen {
  int32_t num_summaries = 0, num_intra = 0, num_applied = 0;
  bool pending = false;
};

class LinearCoverageProver {
 public:
  LinearCoverageProver(const LoweredPlan& plan, int32_t rank, PhaseKind phase)
      : plan_(plan), site_{rank, -1, phase}, state_(plan.request.shape.state) {}

  void prove() {
    const auto& operations = phase_of(plan_, site_.rank, site_.phase).operations;
    for (size_t i = 0; i < operations.size(); ++i) {
      site_.operation = static_cast<int32_t>(i);
      std::visit([this](const auto& body) { add(body); }, operations[i].body);
    }
    site_.operation = -1;
    int64_t row = 0;
    for (const PlacedSpan& placed : plan_.placement.spans(Rank(site_.rank))) {
      const Part part{placed.document, placed.span, row};
      row += placed.span.size();
      const Seen& seen = of(part);
      const int64_t length = plan_.request.documents[placed.document].length;
      const bool comes_in =
          site_.in_backward() ? placed.span.end < length || state_.final : placed.span.begin > 0 || state_.initial;
      if (seen.num_intra == 0) refuse(part, "is not computed");
      if (seen.pending != comes_in) refuse(part, comes_in ? "lacks what comes in" : "waits for nothing");
      if ((seen.num_applied > 0) != comes_in) refuse(part, comes_in ? "is not completed" : "is completed without need");
    }
    if (parts_.size() != plan_.placement.spans(Rank(site_.rank)).size()) {
      refute(Proof::coverage, site_, "computes ", parts_.size(), " parts of ",
             plan_.placement.spans(Rank(site_.rank)).size(), " home spans; a part is a whole home span");
    }
  }

 private:
  void add(const Summarize& body) { add_summaries(body.items); }
  void add(const SummarizeGradient& body) { add_summaries(body.items); }
  void add(const Intra& body) { add_intra(body.items); }
  void add(const IntraGradient& body) { add_intra(body.items); }
  void add(const Apply& body) { add_applied(body.items); }
  void add(const ApplyGradient& body) { add_applied(body.items); }
  template <class Body>
  void add(const Body&) {}

  template <class Item>
  void add_summaries(const std::vector<Item>& items) {
    for (const Item& item : items) {
      Seen& seen = of(item.part);
      if (seen.num_summaries++ > 0 || seen.num_intra > 0) refuse(item.part, "is summarised again, or too late");
    }
  }
  template <class Item>
  void add_intra(const std::vector<Item>& items) {
    for (const Item& item : items) {
      Seen& seen = of(item.part);
      if (seen.num_intra++ > 0) refuse(item.part, "is computed twice");
      seen.pending = item.pending;
    }
  }
  template <class Item>
  void add_applied(const std::vector<Item>& items) {
    for (const Item& item : items) {
      Seen& seen = of(item.part);
      if (seen.num_intra == 0) refuse(item.part, "is completed before it is computed");
      if (seen.num_applied++ > 0) refuse(item.part, "is completed twice");
    }
  }

  Seen& of(const Part& part) { return parts_[{part.document, part.rows}]; }

  [[noreturn]] void refuse(const Part& part, const char* what) const {
    refute(Proof::coverage, site_, "document ", part.document, ", rows ", describe(part.rows), " ", what);
  }

  const LoweredPlan& plan_;
  Site site_;
  const StateShape& state_;
  std::map<std::pair<DocumentId, Span>, Seen> parts_;
};

}  // namespace

void prove_linear_coverage(const LoweredPlan& plan) {
  for (int32_t rank = 0; rank < plan.request.num_ranks(); ++rank) {
    for (const PhaseKind phase : phases_of(plan.request.shape)) LinearCoverageProver(plan, rank, phase).prove();
  }
}

}  // namespace evenspan::plan::proofs
