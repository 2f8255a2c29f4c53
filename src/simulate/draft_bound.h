// What the step of a strategy's draft, or of its plan, takes at least, before programs are written.
#pragma once

#include "evenspan/simulate/prediction.h"
#include "plan/strategy/strategy.h"

namespace evenspan::simulate {

// Seconds of a step at least, to within rounding no more than predict() finds for the plan of the draft. Or, as soon as
// that is known to be at least `enough`, a part of them that is. Three things are counted:
//
// - What each rank computes: its tiles at the profile's times, the copies to and from messages of queries, outputs and
//   their gradients in part of the heads, which are no dense memory of the rank that is their home, and token-wise
//   layers.
// - What the ranks wait for in a layer (PassBound): rounds run one after another, each begins when what its tiles read
//   has come, and what it is the first to read or to add to goes back behind it. In forward that is outputs, after
//   which the home unpacks what came for it; in backward, where rounds run in reverse, gradients of outputs come and
//   those of operands leave.
// - That ranks begin a layer where they ended the one before: so one that has much to do besides attention holds others
//   up in every layer.
//
// In layers of other kinds than the draft's token-wise layers alone take time.
//
// make_plan() may part tiles whose keys cross nodes, and have such keys come by way of another rank of the node. A part
// of such a tile takes as much for each key as any part may, and runs behind the other tiles of its round. What only
// such tiles read is waited for by the rounds behind them; and those of their keys that may be passed on count for no
// way. REQUIRES: as predict(), and the draft is one of the request's.
double bound_of_draft(const plan::Request& request, const plan::Draft& draft, const Scenario& scenario, double enough);

// The same of a plan, whose tiles are parted already.
double bound_of_plan(const plan::Plan& plan, const Scenario& scenario, double enough);

}  // namespace evenspan::simulate
