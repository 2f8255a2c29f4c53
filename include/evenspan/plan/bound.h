// What no plan of a batch can beat.
#pragma once

#include <cstdint>
#include <string_view>

#include "evenspan/plan/request.h"

namespace evenspan::plan {

// Limits that a placement keeps, as max/mean over the ranks.
struct BalanceLimits {
  double work_max_over_mean = 1.01;
  double tokens_max_over_mean = 1.1;
};

// What makes documents be cut, so that keys and values travel.
enum class Binding : uint8_t {
  nothing,  // each document alone may be whole; all of them together may still have to be cut
  work,     // a document has more work than a rank may have
  tokens,   // ranks that hold long documents, or their ends, must have their share of tokens
};

std::string_view to_string(Binding binding);  // "nothing", "work", "tokens"

struct Bound {
  // The least work of the busiest rank: all work divided evenly.
  double work_seconds = 0;
  // The least number of tokens whose keys and values travel, in any plan that computes a query where it is at home and
  // keeps the limits.
  int64_t key_tokens = 0;
  int64_t key_value_bytes = 0;         // of one layer's forward
  Binding binding = Binding::nothing;  // what the larger part of key_tokens comes from
  BalanceLimits limits;                // that these figures hold for
};

// Proof of key_tokens, for a causal document of length s on any set of P ranks. Let M_1 >= M_2 >= ... be, of each rank
// that holds some of it, one more than the last position held there (0 for ranks that hold none); M_1 = s. A rank reads
// all M_i keys up to its last query and has its own, and the own ones of all ranks are the whole document, so
// sum(M_i) - s = M_2 + M_3 + ... tokens travel. All positions from M_(j+1) on lie on the j ranks before it. These hold
//   - at most j C tokens, C being the most tokens of a rank, and at least N - (P - j) C, since the others hold at most
//     (P - j) C of the batch's N;
//   - at most j W work, W being the most work of a rank.
// So work([M_(j+1), s)) plus the work of the lightest N - (P - j) C - (s - M_(j+1)) tokens of the batch is at most j W,
// and s - M_(j+1) is at most j C. Both sides are monotone in M_(j+1): the smallest m that keeps both bounds M_(j+1)
// from below. The sum over j and over documents is a bound. Of a document with a full mask every rank reads all s
// keys, so k ranks move (k - 1) s tokens, and j ranks suffice only if m = 0 keeps the rules for j. Prefixes and
// windows: see bound.cc.
//
// There each document has all of the batch's slack in tokens for itself. A second bound, of which the larger counts,
// shares it. Take any density p <= W / C, and call w / p - 1 the excess of a token of work w: negative for the light
// ones, whose excesses sum to -L. A rank has work at most W and C - d tokens, d >= 0, so its excess is at most
// W / p - C + d; without its light tokens, at most B + u, where B = W / p - C, and the u of all ranks, each at least 0,
// sum to U = P C - N + L. What its dense tokens of single documents exceed B by sums to at most u too, since excesses
// of dense tokens and B are not negative. So there are shares u_D of U, one for each document D, such that for all j
// the dense tokens of [M_(j+1), s) have excess at most j B + u_D, and work at most j W as before. The smallest m that
// keeps both falls in u_D, so the least sum over all ways to share U is a bound. From below it is found by chords: up
// to where the work binds the smallest m is a concave function of u_D (the excess of [m, s) is concave and falls in m),
// so it is at least its chord up to U, or up to there, and constant from there on. The sums of chords are convex: U
// goes where it gains most. Or in steps of U / 64, each share rounded up, for the 4 documents that gain most, and by
// chords for the others. The larger of the two counts. Positions are real numbers there, which only lowers the bound.
Bound lower_bound(const Request& request, const BalanceLimits& limits = {});

}  // namespace evenspan::plan
