// Programs: the plan language that the executor runs, the verifier proves and the text form prints.
#pragma once

#include <cstdint>
#include <string_view>
#include <variant>
#include <vector>

#include "evenspan/plan/operation/accumulate.h"
#include "evenspan/plan/operation/apply.h"
#include "evenspan/plan/operation/attend.h"
#include "evenspan/plan/operation/clear.h"
#include "evenspan/plan/operation/combine.h"
#include "evenspan/plan/operation/copy.h"
#include "evenspan/plan/operation/delta.h"
#include "evenspan/plan/operation/exchange.h"
#include "evenspan/plan/operation/intra.h"
#include "evenspan/plan/operation/merge.h"
#include "evenspan/plan/operation/summarize.h"
#include "evenspan/plan/placement.h"
#include "evenspan/plan/plan.h"

namespace evenspan::plan {

// Something that an operation starts and that goes on beside the operations after it.
using Event = int32_t;
constexpr Event kNoEvent = -1;

struct Operation {
  std::vector<Event> waits;  // events that must have happened before this starts
  Event signals = kNoEvent;  // the event that happens when what this starts is complete; unique in the program
  std::variant<Exchange, Attend, AttendGradient, Copy, Accumulate, Merge, Delta, Clear, Summarize, SummarizeGradient,
               Combine, CombineGradient, Intra, IntraGradient, Apply, ApplyGradient>
      body;
  friend bool operator==(const Operation&, const Operation&) = default;
};

const OperationTraits& traits(const Operation& operation);
inline std::string_view name(const Operation& operation) { return traits(operation).name; }

// The ordered operations of one rank. At its end all events are waited for.
struct Program {
  std::vector<Operation> operations;
  int64_t arena_bytes = 0;
  friend bool operator==(const Program&, const Program&) = default;
};

struct RankProgram {
  Program forward;
  Program backward;
  int64_t saved_bytes = 0;
  friend bool operator==(const RankProgram&, const RankProgram&) = default;
};

// The program of one rank, made without making the others'. Every rank that lowers the same plan gets its matching
// part.
RankProgram lower(const Plan& plan, Rank rank);

// All programs of a plan: what `verify` proves and the text form holds.
struct LoweredPlan {
  Request request;
  Placement placement;
  std::vector<RankProgram> programs;  // [rank]
};
LoweredPlan lower_all(const Plan& plan);

// Payload bytes that leave the rank in a program.
int64_t sent_bytes(const Program& program, const AttentionShape& shape);

}  // namespace evenspan::plan
