// HiGHS as the solver of the planners' programs. The library is opened when it is first needed, so that whoever does
// not use it need not have it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "evenspan/batch/milp.h"

namespace evenspan::highs {

// Opens libhighs.so under the first of these paths that exists; a path without a slash is looked for as the system
// does. Throws resource where none can be used; the text says what to install.
std::unique_ptr<batch::MilpSolver> open_solver(const std::vector<std::string>& paths);

}  // namespace evenspan::highs
