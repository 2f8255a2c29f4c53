// The exact optimum of small steps by the model of docs/global_batches.md, to hold planners against.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "evenspan/batch/milp.h"
#include "evenspan/batch/step.h"

namespace evenspan::batch {

// How lengths are drawn.
enum class Lengths : uint8_t { uniform, log_normal, long_one, equal };

struct OracleCase {
  Lengths kind = Lengths::uniform;
  Cost cost;
  std::vector<int64_t> lengths;
};

// 2 to 12 documents on 1 to 8 ranks in nodes of 1, 2, 4 or 8: lengths of each kind; memory that just holds the longest
// document, up to all documents on a rank; pairs that cost nothing, up to most; micro-batches that cost nothing, up to
// more than their documents; all-to-alls from free to dear.
OracleCase oracle_case(uint64_t seed);

enum class Verdict : uint8_t {
  within,     // no plan takes less than `target`
  worse,      // a plan takes less
  undecided,  // the time was over before either was known
};

struct OracleAnswer {
  Verdict verdict = Verdict::undecided;
  // No plan takes less. worse: this is the optimum, within the solver's gap. within: at least `target`.
  double seconds = 0;
  int64_t num_programs = 0;  // that the solver was given; 0: lower_bound() was enough
};

// Whether any plan takes less than `target` seconds. The optimum is the best of all ways to divide the documents into
// micro-batches. Every set of documents has a bound of its seconds, at first lower_bound()'s; while the best way by
// these bounds is below the target, a mixed-integer program finds a set's seconds, or that with them no way is below.
// Shares of a document are real numbers there, which takes no more than whole tokens. Stops after `most_seconds`.
// REQUIRES: at most 12 documents, with check_documents().
OracleAnswer ask_oracle(std::span<const int64_t> lengths, const Cost& cost, double target, MilpSolver& solver,
                        double most_seconds);

}  // namespace evenspan::batch
