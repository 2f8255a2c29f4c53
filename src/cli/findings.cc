#include "cli/findings.h"

#include <iostream>

#include "evenspan/core/grouped.h"

namespace evenspan::cli {

bool report(const plan::LoweredPlan& plan, const std::vector<plan::Finding>& findings, const std::string& name,
            const plan::ProgramLines* lines, bool to_stderr) {
  std::ostream& out = to_stderr ? std::cerr : std::cout;
  for (const plan::Finding& finding : findings) {
    const int64_t line = lines == nullptr ? 0 : lines->of(finding.rank, finding.phase, finding.operation);
    out << name << ":";
    if (line > 0) out << line << ":";
    out << " " << to_string(finding) << "\n";
  }
  if (!findings.empty()) {
    out << name << ": refused\n";
    return false;
  }
  int64_t num_operations = 0;
  for (const plan::RankProgram& program : plan.programs) {
    for (const plan::Phase& phase : program.phases) num_operations += static_cast<int64_t>(phase.operations.size());
  }
  out << name << ": proven (coverage, dataflow, matching, result, memory) for " << plan.request.num_ranks()
      << " ranks, " << grouped(num_operations) << " operations\n";
  return true;
}

}  // namespace evenspan::cli
