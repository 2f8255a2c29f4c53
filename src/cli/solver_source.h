// The solver of planners that need one: HiGHS, where the package highsbox has it.
#pragma once

#include <string>

#include "evenspan/batch/planner.h"

namespace evenspan::cli {

// Opens the library of HiGHS when it is first asked for: `path`, or where that is empty, that of the Python environment
// in which this program lies, of the interpreter that it was built with, or of the system. Throws resource then where
// there is none.
batch::SolverSource solver_source(const std::string& path);

}  // namespace evenspan::cli
