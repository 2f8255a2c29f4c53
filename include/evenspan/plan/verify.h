// Proofs about a plan, for all ranks at once.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "evenspan/core/work_part.h"
#include "evenspan/plan/program.h"

namespace evenspan::plan {

enum class Proof : uint8_t {
  coverage,  // the tiles of all ranks cover each allowed (query, key) pair of each document and head exactly once; of a
             // linear layer, each home span is computed once, and completed once where something comes into it
  dataflow,  // every row that is read was written before, by the right source, and not overwritten since
  matching,  // sends and receives pair up block for block; no deadlock even if every send blocks until received
  result,    // every home row gets its output, and each gradient, from all its partials exactly once
  memory,    // blocks stay inside their buffers, live ones never overlap, the peak keeps the budget
};
std::string_view to_string(Proof proof);

struct Finding {
  Proof proof = Proof::coverage;
  int32_t rank = -1;       // -1: all
  int32_t operation = -1;  // index in the phase; -1: none in particular
  PhaseKind phase = PhaseKind::forward;
  std::string text;  // what is wrong, with the values
};
std::string to_string(const Finding& finding);

// Empty when the plan is proven: with its phases in order, and, since recomputing changes nothing that it was not
// already, without that phase. Stops a proof at its first finding; later proofs that build on it are then left out.
// Works on spans and intervals, never on single tokens.
std::vector<Finding> verify(const LoweredPlan& plan, const WorkPart& work = {});

}  // namespace evenspan::plan
