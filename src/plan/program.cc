#include "evenspan/plan/program.h"

#include <algorithm>
#include <array>
#include <utility>

#include "evenspan/core/error.h"

namespace evenspan::plan {

std::string_view to_string(TensorName name) {
  constexpr std::array<std::string_view, kNumTensorNames> kNames = {
      "query",      "key",      "value",      "output",      "lse",        "delta",        "grad_output",
      "grad_query", "grad_key", "grad_value", "gate",        "beta",       "grad_gate",    "grad_beta",
      "state",      "summary",  "transition", "final_state", "grad_state", "grad_summary", "grad_initial_state"};
  return kNames[static_cast<size_t>(name)];
}

std::string_view to_string(Lifetime lifetime) {
  constexpr std::array<std::string_view, kNumLifetimes> kNames = {"caller", "phase", "step"};
  return kNames[static_cast<size_t>(lifetime)];
}

std::string to_string(BufferId buffer) {
  constexpr std::array<const char*, kNumNamedBuffers> kNames = {"home", "arena", "saved"};
  const auto number = static_cast<size_t>(buffer);
  return number < kNames.size() ? kNames[number] : "buffer" + std::to_string(number);
}

std::string_view to_string(Transition transition) {
  constexpr std::array<std::string_view, 4> kNames = {"known", "scalar", "diagonal", "dense"};
  return kNames[static_cast<size_t>(transition)];
}

std::string_view to_string(Gate gate) {
  constexpr std::array<std::string_view, 4> kNames = {"none", "head", "token", "channel"};
  return kNames[static_cast<size_t>(gate)];
}

Transition StateShape::transition() const {
  if (delta_rule) return Transition::dense;
  return gate == Gate::token ? Transition::scalar : gate == Gate::channel ? Transition::diagonal : Transition::known;
}

const OperationTraits& traits(const Operation& operation) {
  return std::visit([](const auto& body) -> const OperationTraits& { return std::decay_t<decltype(body)>::kTraits; },
                    operation.body);
}

std::string_view to_string(PhaseKind kind) {
  constexpr std::array<std::string_view, kNumPhaseKinds> kNames = {"forward", "recompute", "backward"};
  return kNames[static_cast<size_t>(kind)];
}

const Phase& RankProgram::phase(PhaseKind kind) const {
  const auto at = std::find_if(phases.begin(), phases.end(), [kind](const Phase& phase) { return phase.kind == kind; });
  EVENSPAN_CHECK_NE(at - phases.begin(), std::ssize(phases));
  return *at;
}
Phase& RankProgram::phase(PhaseKind kind) {
  return phases[static_cast<size_t>(&std::as_const(*this).phase(kind) - phases.data())];
}

int64_t RankProgram::bytes(Lifetime lifetime) const {
  int64_t bytes = 0;
  for (const Buffer& buffer : buffers) bytes += buffer.lifetime == lifetime ? buffer.bytes : 0;
  return bytes;
}

int64_t width(TensorName tensor, const AttentionShape& shape) {
  const int64_t key_dim = shape.head_dim;
  switch (tensor) {
    case TensorName::lse:
    case TensorName::delta:
      return 1;
    case TensorName::query:
    case TensorName::key:
    case TensorName::grad_query:
    case TensorName::grad_key:
      return key_dim;
    case TensorName::value:
    case TensorName::output:
    case TensorName::grad_output:
    case TensorName::grad_value:
      return shape.is_linear() ? shape.state.value_dim : key_dim;
    case TensorName::gate:
    case TensorName::grad_gate:
      return shape.state.gate == Gate::token ? 1 : shape.state.gate == Gate::channel ? key_dim : 0;
    case TensorName::beta:
    case TensorName::grad_beta:
      return shape.state.delta_rule ? 1 : 0;
    case TensorName::transition:
      switch (shape.state.transition()) {
        case Transition::known:
          return 0;
        case Transition::scalar:
          return 1;
        case Transition::diagonal:
          return key_dim;
        case Transition::dense:
          return key_dim * key_dim;
      }
      return 0;
    default:
      return key_dim * shape.state.value_dim;
  }
}

Precision home_precision(TensorName tensor) {
  return tensor >= TensorName::gate ? Precision::accumulation : Precision::input;
}

int64_t element_bytes(const Block& block, const AttentionShape& shape) {
  return num_bytes(block.precision == Precision::input ? shape.element : accumulation_type(shape.element));
}

int64_t payload_bytes(const Block& block, const AttentionShape& shape) {
  return num_rows(block) * block.heads.size() * width(block.tensor, shape) * element_bytes(block, shape);
}

bool is_dense(const Block& block, const AttentionShape& shape) {
  return num_rows(block) <= 1 || block.row_stride == block.heads.size() * width(block.tensor, shape);
}

Block sub_block(const Block& block, Span rows, HeadRange heads, const AttentionShape& shape) {
  EVENSPAN_CHECK_EQ(block.rows.contains(rows) && block.heads.contains(heads), true);
  EVENSPAN_CHECK_EQ(!is_state(block.tensor) || rows == block.rows, true);
  Block sub = block;
  sub.rows = rows;
  sub.heads = heads;
  sub.offset_bytes += ((rows.begin - block.rows.begin) * block.row_stride +
                       (heads.begin - block.heads.begin) * width(block.tensor, shape)) *
                      element_bytes(block, shape);
  return sub;
}

Block home_rows(const Part& part, TensorName tensor, const AttentionShape& shape) {
  const HeadRange heads{0, shape.num_heads};
  Block block{tensor,
              BufferId::home,
              home_precision(tensor),
              part.document,
              part.rows,
              heads,
              0,
              heads.size() * width(tensor, shape)};
  block.offset_bytes = part.home_row * block.row_stride * element_bytes(block, shape);
  return block;
}

int64_t sent_bytes(const Phase& phase, const AttentionShape& shape) {
  int64_t bytes = 0;
  for (const Operation& operation : phase.operations) {
    const auto* exchange = std::get_if<Exchange>(&operation.body);
    if (exchange == nullptr) continue;
    for (const Message& message : exchange->items) {
      if (message.direction != Direction::send) continue;
      for (const Block& block : message.blocks) bytes += payload_bytes(block, shape);
    }
  }
  return bytes;
}

}  // namespace evenspan::plan
