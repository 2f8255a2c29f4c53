#include "evenspan/plan/verify.h"

#include "plan/verify/proof.h"

namespace evenspan::plan {
namespace {

// Whether the proof holds; its finding is appended if not.
template <class F>
bool holds(std::vector<Finding>* findings, F&& prove) {
  try {
    prove();
    return true;
  } catch (proofs::Refuted& refuted) {
    findings->push_back(std::move(refuted.finding));
    return false;
  }
}

}  // namespace

std::string_view to_string(Proof proof) {
  switch (proof) {
    case Proof::coverage:
      return "coverage";
    case Proof::dataflow:
      return "dataflow";
    case Proof::matching:
      return "matching";
    case Proof::result:
      return "result";
    case Proof::memory:
      return "memory";
  }
  return "unknown";
}

std::string to_string(const Finding& finding) {
  std::string where;
  if (finding.rank >= 0) where = join_text(" rank ", finding.rank);
  if (finding.operation >= 0) {
    where += join_text(" ", to_string(finding.phase), " operation ", finding.operation);
  } else if (finding.phase != PhaseKind::forward) {
    where += join_text(" ", to_string(finding.phase));
  }
  return join_text("[", to_string(finding.proof), "]", where, where.empty() ? " " : ": ", finding.text);
}

std::vector<Finding> verify(const LoweredPlan& plan, const WorkPart& work) {
  std::vector<Finding> findings;
  if (!holds(&findings, [&] { proofs::prove_well_formed(plan); })) return findings;
  work.tell(1, 5);
  holds(&findings, [&] { proofs::prove_memory(plan); });
  work.tell(2, 5);
  holds(&findings,
        [&] { plan.request.shape.is_linear() ? proofs::prove_linear_coverage(plan) : proofs::prove_coverage(plan); });
  work.tell(3, 5);
  if (holds(&findings, [&] { proofs::prove_matching(plan); })) {
    work.tell(4, 5);
    holds(&findings, [&] { proofs::prove_dataflow_and_result(plan); });
  }
  return findings;
}

}  // namespace evenspan::plan
