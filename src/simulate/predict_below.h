// Predictions of steps that may turn out too long to matter.
#pragma once

#include <variant>

#include "evenspan/simulate/prediction.h"

namespace evenspan::simulate {

// predict(), or, as soon as the operations of one rank, one after another, make a step of at least `enough` seconds,
// what they take.
std::variant<Prediction, double> predict_below(double enough, const plan::Plan& plan, const Scenario& scenario,
                                               Timeline timeline, const WorkPart& work);

}  // namespace evenspan::simulate
