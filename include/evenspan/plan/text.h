// The text form of a plan: a line per operation, stable, diffable. docs/plan_format.md describes it.
#pragma once

#include <string>

#include "evenspan/plan/program.h"

namespace evenspan::plan {

// print(parse(print(plan))) == print(plan), and parse(print(plan)) holds the same programs.
std::string print(const LoweredPlan& plan);

// Throws invalid_argument with line and column for text that is no plan.
LoweredPlan parse(const std::string& text);

}  // namespace evenspan::plan
