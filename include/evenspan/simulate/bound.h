// What no plan's step can beat in the simulator.
#pragma once

#include "evenspan/simulate/prediction.h"

namespace evenspan::simulate {

// Seconds of a step in which all work is divided evenly, every document's attention takes the least that tiles can take
// for it, and transfers, copies, launches and merges take no time: for each document the larger of two bounds.
//
// Proof, by the best rate of a pair that a tile inside the document can have. The compute engines of P ranks do all
// token-wise work and all pairs, each pair in a segment whose q rows and k keys lie in its document of s tokens; the
// busiest does at least the P-th part. A segment takes at least f(q', k') per head, q' and k' being q and k in whole
// tiles, and allows at most q k <= q' k' pairs. Between the points of the grid f is a + b q + c k + d q k, so f / (q k)
// is monotone in q for any k and in k for any q, and least at the corners of any box inside a cell: the least over q'
// <= Q and k' <= K is met where q' is a point of the grid or Q, and k' likewise.
//
// In a causal document the pairs of a segment that is no causal square are all allowed, so its keys lie before its rows
// and q + k <= s + 1, in whole tiles q' + k' <= s + 2 tile - 1 = m. Keys are divided at the points of the grid and at
// 32 even parts of m: with k' between two neighbours K0 < K1, q' is at most m - K0, which makes a box. A causal square
// of n rows takes f(n', (n' + tile) / 2), or what was measured, for n (n + 1) / 2 pairs, least for n = min(n', s):
// every whole number of tiles up to s' is looked at. (Windows and prefixes are bounded as full masks are.)
//
// Proof, by rows. For a price c of a pair let r be the largest price of a row with f(q', k') >= r q' + c q' k' for all
// whole tiles up to s', and for causal squares f >= r n' + c n' (n' + tile) / 2; f / q' - c k' is monotone in either,
// so the corners of cells tell. Then segments take at least r sum q' + c pairs. Each row is in a segment, in causal
// documents that of the pair with itself: in a causal square of n rows, which has n (tile - 1) / 2 more pairs' worth
// than n (n + 1) / 2; or in a rectangle, which has only its first row's. With d rows of the second kind, sum q' is at
// least s' without them, and s + d (tile - 1) >= s' + (d - 1) (tile - 1) with them. So a causal document takes at least
// r s' + c s (s + 1) / 2 + min(c / 2, r) (tile - 1) (s - 1). Where kernels cost a start for each block of rows and so
// much a key, whole documents of whole tiles meet that but for a row. Several c are tried. REQUIRES: as predict().
double step_lower_bound(const plan::Request& request, const Scenario& scenario);

}  // namespace evenspan::simulate
