// How a verdict on a plan is told.
#pragma once

#include <string>
#include <vector>

#include "evenspan/plan/verify.h"
#include "plan/text/format.h"

namespace evenspan::cli {

// Prints that the plan is proven, or every finding: where ("NAME:LINE: " when `lines` is there and knows the
// operation), which proof, what is wrong. To standard error when `to_stderr`, otherwise to standard output. True if
// proven.
bool report(const plan::LoweredPlan& plan, const std::vector<plan::Finding>& findings, const std::string& name,
            const plan::ProgramLines* lines, bool to_stderr);

}  // namespace evenspan::cli
