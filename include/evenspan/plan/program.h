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

enum class PhaseKind : uint8_t {
  forward,
  recompute,  // the outputs once more, of what forward saved; it leaves that as it is, so a step may do without it
  backward,
};
constexpr int kNumPhaseKinds = 3;
std::string_view to_string(PhaseKind kind);

// Operations of one rank, in order. At their end all events are waited for.
struct Phase {
  PhaseKind kind = PhaseKind::forward;
  std::vector<Operation> operations;
  friend bool operator==(const Phase&, const Phase&) = default;
};

struct RankProgram {
  std::vector<Buffer> buffers{Buffer{}};  // [BufferId]; home comes first
  std::vector<Phase> phases;              // in the order in which a step runs them

  const Buffer& buffer(BufferId id) const { return buffers[static_cast<size_t>(id)]; }
  Buffer& buffer(BufferId id) { return buffers[static_cast<size_t>(id)]; }
  // Of all buffers that live so long.
  int64_t bytes(Lifetime lifetime) const;
  // REQUIRES: there is one.
  const Phase& phase(PhaseKind kind) const;
  Phase& phase(PhaseKind kind);
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

// Payload bytes that leave the rank in a phase.
int64_t sent_bytes(const Phase& phase, const AttentionShape& shape);

}  // namespace evenspan::plan
