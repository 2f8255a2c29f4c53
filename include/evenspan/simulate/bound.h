// What no plan's step can beat in the simulator.
#pragma once

#include "evenspan/simulate/prediction.h"

namespace evenspan::simulate {

// Seconds of a step in which all work is divided evenly, every pair of every document is computed at the best rate that
// a tile inside the document can have, and transfers, copies, launches and merges take no time.
//
// Proof. The compute engines of P ranks do all token-wise work and all pairs, each pair in a segment whose q rows and k
// keys lie in its document of s tokens; the busiest does at least the P-th part. A segment takes at least f(q', k') per
// head, q' and k' being q and k in whole tiles, and allows at most q' k' pairs (a causal square of n rows takes
// f(n', (n' + tile) / 2) and allows n (n + 1) / 2 <= n' (n' + tile) / 2). Between the points of the grid f is
// a + b q + c k + d q k, so f / (q k) is monotone in q for any k and in k for any q, and least at the ends of a cell:
// the least over all q', k' <= s' is met where each is a point of the grid or s'. Where causal squares are measured, one
// takes n' (a + b n') between two of them, for at most n' (n' + 1) / 2 pairs: the ratio 2 (a + b n') / (n' + 1) is
// monotone, so the least over n' <= s' is met at a measured square or s'. REQUIRES: as predict().
double step_lower_bound(const plan::Request& request, const Scenario& scenario);

}  // namespace evenspan::simulate
