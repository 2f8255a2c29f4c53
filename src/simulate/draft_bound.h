// What the step of a strategy's draft, or of its plan, takes at least, before programs are written.
#pragma once

#include "evenspan/simulate/prediction.h"
#include "plan/strategy/strategy.h"

namespace evenspan::simulate {

// Seconds of a step in which no rank waits for another, in the layers that the draft is of; in all others token-wise
// layers alone take time. For each rank and pass the longest of these, and then the rank that takes longest:
//
// - What it computes: its tiles at the profile's times, and the copies to and from messages of queries, outputs and
//   their gradients in part of the heads, which are no dense memory of the rank that is their home.
// - The stages one after another: each begins when what its tiles read has come, at the rank's whole bandwidth, and
// what
//   a stage is the first to read or to add to goes back behind it. In forward that is outputs, after which the home
//   unpacks what came for it; in backward, where stages run in reverse, gradients of outputs come and those of operands
//   leave.
//
// make_plan() may part tiles whose keys cross nodes, and have such keys come by way of another rank of the node. Those
// keys count for no way then, a part of such a tile takes as much for each key as any part may, and what their stages
// wait for and send is waited for and sent by the stages behind them only. To within rounding no more than predict()
// finds for the plan of the draft. REQUIRES: as predict(), and the draft is one of the request's.
double bound_of_draft(const plan::Request& request, const plan::Draft& draft, const Scenario& scenario);

// The same of a plan, whose tiles are parted already.
double bound_of_plan(const plan::Plan& plan, const Scenario& scenario);

}  // namespace evenspan::simulate
