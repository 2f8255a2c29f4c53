// Blocks: rows x heads of a tensor in memory, which is all that operations read and write.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "evenspan/plan/documents.h"
#include "evenspan/plan/request.h"

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
  // Of linear attention alone: numbers of each row and head, which have the accumulation type at home too.
  gate,
  beta,
  grad_gate,
  grad_beta,
  // States of linear attention. `rows` of their blocks are the span whose map they hold, and take one row of memory.
  state,               // after [0, end); at home: the given initial state, after [0, 0)
  summary,             // E of the map S -> M S + E over a span
  transition,          // M of it, or its logarithm (Transition)
  final_state,         // after the whole document
  grad_state,          // gradient of the state before [begin, length); at home: the given gradient of the final state
  grad_summary,        // G of the map dS -> M^T dS + G over a span, from its end to its begin
  grad_initial_state,  // gradient of the initial state
};
constexpr int kNumTensorNames = 21;
std::string_view to_string(TensorName name);
constexpr bool is_state(TensorName name) { return name >= TensorName::state; }

// How long what lies in a buffer stays there.
enum class Lifetime : uint8_t {
  caller,  // the layer's own tensors, which the caller brings and keeps
  phase,   // for one run of a phase
  step,    // from a layer's forward to its backward
};
constexpr int kNumLifetimes = 3;
std::string_view to_string(Lifetime lifetime);

struct Buffer {
  Lifetime lifetime = Lifetime::caller;
  int64_t bytes = 0;  // 0 of the caller's
  friend bool operator==(const Buffer&, const Buffer&) = default;
};

// A buffer by its place in the list that a rank's program declares. The first ones have names.
enum class BufferId : uint8_t {
  home,   // the caller's: tensors [rows, heads, width], rows in placement order; of states [documents, heads, width]
  arena,  // of a phase
  saved,  // of a step
};
constexpr int kNumNamedBuffers = 3;
std::string to_string(BufferId buffer);  // "home", "arena", "saved", then "buffer3" and so on

enum class Precision : uint8_t { input, accumulation };

// What an operation does to a block; `update`: it reads the block and writes it.
enum class Access : uint8_t { read, write, update };

// Rows x heads of a tensor somewhere. Element (row i, head j, component w) lies at
// offset_bytes + ((i * row_stride) + j * width + w) * bytes per element, width being that of `width`.
// Offsets count from the start of the buffer, at home from the start of the named tensor.
struct Block {
  TensorName tensor = TensorName::query;
  BufferId buffer = BufferId::home;
  Precision precision = Precision::input;  // lse, delta and buffers under accumulation: accumulation
  DocumentId document;
  Span rows;        // positions in the document
  HeadRange heads;  // query heads; kv heads for key, value and their gradients
  int64_t offset_bytes = 0;
  int64_t row_stride = 0;  // in elements; a block is dense when it equals heads x width
  friend bool operator==(const Block&, const Block&) = default;
};

// A block and where it is copied from or added from. Both are of one shape.
struct BlockPair {
  Block to, from;
  friend bool operator==(const BlockPair&, const BlockPair&) = default;
};

// The home span of a document that a linear operation works on: all heads of these rows, where they lie at home.
struct Part {
  DocumentId document;
  Span rows;             // a whole home span
  int64_t home_row = 0;  // of rows.begin
  friend bool operator==(const Part&, const Part&) = default;
};

// Elements of a row and head; 0 for tensors that a layer of this shape has not.
int64_t width(TensorName tensor, const AttentionShape& shape);
// The precision of a tensor that lies at home.
Precision home_precision(TensorName tensor);
// Rows of memory.
inline int64_t num_rows(const Block& block) { return is_state(block.tensor) ? 1 : block.rows.size(); }
int64_t element_bytes(const Block& block, const AttentionShape& shape);
int64_t payload_bytes(const Block& block, const AttentionShape& shape);
bool is_dense(const Block& block, const AttentionShape& shape);
// The sub-block of the given rows and heads, both inside the block's.
Block sub_block(const Block& block, Span rows, HeadRange heads, const AttentionShape& shape);
// The rows of a home tensor that a part stands for.
Block home_rows(const Part& part, TensorName tensor, const AttentionShape& shape);

}  // namespace evenspan::plan
