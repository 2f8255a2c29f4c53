// Programs: the plan language that the executor runs, the verifier proves and the text form prints.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <variant>
#include <vector>

#include "evenspan/plan/placement.h"
#include "evenspan/plan/plan.h"
#include "evenspan/plan/tile.h"

namespace evenspan::plan {

enum class TensorName : uint8_t {
  query,
  key,
  value,
  output,
  lse,    // log-sum-exp of the scores, one number per row and head
  delta,  // row sums of output x grad_output, one number per row and head
  grad_output,
  grad_query,
  grad_key,
  grad_value,
  // Of linear attention. `rows` of their blocks are the span whose map they hold, and take one row of memory.
  state,               // after [0, end); at home: the given initial state, after [0, 0)
  summary,             // E of the map S -> M S + E over a span
  transition,          // M of it, or its logarithm (Transition)
  final_state,         // after the whole document
  grad_state,          // gradient of the state before [begin, length); at home: the given gradient of the final state
  grad_summary,        // G of the map dS -> M^T dS + G over a span, from its end to its begin
  grad_initial_state,  // gradient of the initial state
};
constexpr int kNumTensorNames = 17;
std::string_view to_string(TensorName name);
constexpr bool is_state(TensorName name) { return name >= TensorName::state; }

enum class Storage : uint8_t {
  home,   // the layer's own tensors, [rows, heads, width], rows in placement order; of states [documents, heads, width]
  arena,  // one buffer of a rank, lives for one run of a program
  saved,  // one buffer of a rank and layer, lives from forward to backward
};
std::string_view to_string(Storage storage);

enum class Precision : uint8_t { input, accumulation };

// Rows x heads of a tensor somewhere. Element (row i, head j, component w) lies at
// offset_bytes + ((i * row_stride) + j * width + w) * bytes per element, width being that of `width`.
// Home offsets count from the start of the named home tensor, others from the start of the buffer.
struct Block {
  TensorName tensor = TensorName::query;
  Storage storage = Storage::home;
  Precision precision = Precision::input;  // lse, delta and buffers under accumulation: accumulation
  DocumentId document;
  Span rows;        // positions in the document
  HeadRange heads;  // query heads; kv heads for key, value and their gradients
  int64_t offset_bytes = 0;
  int64_t row_stride = 0;  // in elements; a block is dense when it equals heads x width
  friend bool operator==(const Block&, const Block&) = default;
};

// Elements of a row and head.
int64_t width(TensorName tensor, const AttentionShape& shape);
// Rows of memory.
inline int64_t num_rows(const Block& block) { return is_state(block.tensor) ? 1 : block.rows.size(); }
int64_t element_bytes(const Block& block, const AttentionShape& shape);
int64_t payload_bytes(const Block& block, const AttentionShape& shape);
bool is_dense(const Block& block, const AttentionShape& shape);
// The sub-block of the given rows and heads, both inside the block's.
Block sub_block(const Block& block, Span rows, HeadRange heads, const AttentionShape& shape);

// Blocks that lie back to back, in this order, in one dense range of memory, at both ends.
struct Message {
  Rank peer;
  std::vector<Block> blocks;
  friend bool operator==(const Message&, const Message&) = default;
};

// Starts all sends and receives together. Messages between two ranks match in program order.
struct Exchange {
  int32_t id = 0;  // unique in the program
  std::vector<Message> sends;
  std::vector<Message> receives;
  friend bool operator==(const Exchange&, const Exchange&) = default;
};

// One kernel call of a batched attention. `keys` etc. have the rows of the tile.
struct Segment {
  TileKind kind = TileKind::full;
  int64_t window = 0;  // of window and band
  Block query, key, value;
  Block output, lse;  // forward: written, or folded into; backward: read, final
  bool fold = false;  // forward: merge into what output and lse hold; false: overwrite
  friend bool operator==(const Segment&, const Segment&) = default;
};
struct Attend {
  std::vector<Segment> segments;
  friend bool operator==(const Attend&, const Attend&) = default;
};

// A gradient that a segment writes or adds to.
struct GradientTarget {
  Block block;
  bool add = false;
  friend bool operator==(const GradientTarget&, const GradientTarget&) = default;
};
struct SegmentGradient {
  Segment forward;  // `fold` is false; output and lse are final. `output` may be a block of delta instead
  Block grad_output;
  GradientTarget grad_query, grad_key, grad_value;
  friend bool operator==(const SegmentGradient&, const SegmentGradient&) = default;
};
struct AttendGradient {
  std::vector<SegmentGradient> segments;
  friend bool operator==(const AttendGradient&, const AttendGradient&) = default;
};

struct BlockPair {
  Block to, from;
  friend bool operator==(const BlockPair&, const BlockPair&) = default;
};
// to = from, converting precision. Blocks are of one shape.
struct Copy {
  std::vector<BlockPair> pairs;
  friend bool operator==(const Copy&, const Copy&) = default;
};
// to += from, in the precision of `to`, in this order.
struct Accumulate {
  std::vector<BlockPair> pairs;
  friend bool operator==(const Accumulate&, const Accumulate&) = default;
};
// Folds a partial result into another: (output, lse) += (from_output, from_lse), all of the same rows and heads.
struct PartialPair {
  Block output, lse;
  Block from_output, from_lse;  // of at least one segment
  friend bool operator==(const PartialPair&, const PartialPair&) = default;
};
// Forward only. In this order, in the precision of `output` and of lse.
struct Merge {
  std::vector<PartialPair> pairs;
  friend bool operator==(const Merge&, const Merge&) = default;
};
// delta = the row sums of output x grad_output. `output` is final.
struct DeltaRows {
  Block delta, output, grad_output;
  friend bool operator==(const DeltaRows&, const DeltaRows&) = default;
};
// Backward only: what a tile away from its finisher needs of the output.
struct Delta {
  std::vector<DeltaRows> rows;
  friend bool operator==(const Delta&, const Delta&) = default;
};
// The empty partial: outputs and gradients 0, lse minus infinity.
struct Clear {
  std::vector<Block> blocks;
  friend bool operator==(const Clear&, const Clear&) = default;
};

// Linear attention (run/linear_kernel.h). Its operations read and write the rank's home rows of a part, all heads,
// where they lie: query, key, value, gate and beta, output, in backward also grad_output and the gradients of the
// others.
struct Part {
  DocumentId document;
  Span rows;             // a whole home span
  int64_t home_row = 0;  // of rows.begin
  friend bool operator==(const Part&, const Part&) = default;
};

// What a part does to the state that comes in. Backward: to the gradient that comes in at its end.
struct PartSummary {
  Part part;
  Block summary;                    // state and final_state where nothing comes in at the part's begin
  std::optional<Block> transition;  // forward only
  friend bool operator==(const PartSummary&, const PartSummary&) = default;
};
struct Summarize {
  std::vector<PartSummary> parts;
  friend bool operator==(const Summarize&, const Summarize&) = default;
};

// to = M_near far + near, or, where `far` is a summary, the map of both spans. Backward: M_near^T. `near` adjoins `far`
// in the direction of the pass: it begins where `far` ends, in backward it ends where `far` begins.
struct Composition {
  Block to, far, near;  // summary, or for `to` and `far` a state
  std::optional<Block> to_transition, far_transition, near_transition;
  friend bool operator==(const Composition&, const Composition&) = default;
};
// In this order.
struct Combine {
  std::vector<Composition> compositions;
  friend bool operator==(const Combine&, const Combine&) = default;
};

// What of a part needs nothing from other parts. Backward: nothing but the state before it.
struct IntraPart {
  Part part;
  std::optional<Block> state;  // backward only: what the part started from; none: 0
  bool pending = false;        // an Apply completes the part
  friend bool operator==(const IntraPart&, const IntraPart&) = default;
};
struct Intra {
  std::vector<IntraPart> parts;
  friend bool operator==(const Intra&, const Intra&) = default;
};

// Completes parts with the state that comes in. Backward: with the gradient of the state that goes out.
struct ApplyPart {
  Part part;
  std::optional<Block> state;       // forward: always there
  std::optional<Block> grad_state;  // backward only, and there always
  friend bool operator==(const ApplyPart&, const ApplyPart&) = default;
};
struct Apply {
  std::vector<ApplyPart> parts;
  friend bool operator==(const Apply&, const Apply&) = default;
};

struct Operation {
  std::vector<int32_t> waits;  // exchanges that must be complete before this starts
  std::variant<Exchange, Attend, AttendGradient, Copy, Accumulate, Merge, Delta, Clear, Summarize, Combine, Intra,
               Apply>
      body;
  friend bool operator==(const Operation&, const Operation&) = default;
};

// The ordered operations of one rank. At its end all exchanges are waited for.
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
