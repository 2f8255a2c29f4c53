// The JSON form of a plan.
#pragma once

#include <string>

#include "evenspan/plan/plan.h"

namespace evenspan::cli {

// One object, described in docs/plan_format.md; a line for each key, and for each rank of `placement` and `tiles`.
// `mask` is the mask of all documents.
std::string plan_json(const plan::Plan& plan, const plan::Metrics& metrics, const plan::Mask& mask,
                      double planning_seconds);

}  // namespace evenspan::cli
