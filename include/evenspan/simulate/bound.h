// What no plan's step can beat in the simulator.
#pragma once

#include "evenspan/simulate/prediction.h"

namespace evenspan::simulate {

// Seconds of a step in which all work is divided evenly, every pair of every document is computed at the best rate that
// a tile inside the document can have, and transfers, copies, launches and merges take no time.
//
// Proof. The compute engines of P ranks do all token-wise work and all pairs, each pair in a segment whose q rows and k
// keys lie in its document of s tokens; the busiest does at least the P-th part. A segment takes at least f(q', k') per
// head, q' and k' being q and k in whole tiles, and allows at most q k <= q' k' pairs. Between the points of the grid f
// is a + b q + c k + d q k, so f / (q k) is monotone in q for any k and in k for any q, and least at the corners of any
// box inside a cell: the least over q' <= Q and k' <= K is met where q' is a point of the grid or Q, and k' likewise.
//
// In a causal document the pairs of a segment that is no causal square are all allowed, so its keys lie before its rows
// and q + k <= s + 1, in whole tiles q' + k' <= s + 2 tile - 1 = m. Keys are divided at the points of the grid and at
// 32 even parts of m: with k' between two neighbours K0 < K1, q' is at most m - K0, which makes a box. A causal square
// of n rows takes f(n', (n' + tile) / 2), or what was measured, for n (n + 1) / 2 pairs, least for n = min(n', s):
// every whole number of tiles up to s' is looked at. (Windows and prefixes are bounded as full masks are.) REQUIRES: as
// predict().
double step_lower_bound(const plan::Request& request, const Scenario& scenario);

// What the step of this plan takes at least: the busiest rank's token-wise layers, and its pairs at the best rate that
// any tile of the profile has. Needs no programs.
double busiest_rank_bound(const plan::Plan& plan, const Scenario& scenario);

}  // namespace evenspan::simulate
