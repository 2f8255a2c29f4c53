#include "evenspan/plan/program.h"

#include "evenspan/core/error.h"

namespace evenspan::plan {

std::string_view to_string(TensorName name) {
  constexpr std::array<std::string_view, kNumTensorNames> kNames = {
      "query", "key", "value", "output", "lse", "delta", "grad_output", "grad_query", "grad_key", "grad_value"};
  return kNames[static_cast<size_t>(name)];
}

std::string_view to_string(Storage storage) {
  constexpr std::array<std::string_view, 3> kNames = {"home", "arena", "saved"};
  return kNames[static_cast<size_t>(storage)];
}

int64_t width(TensorName tensor, const AttentionShape& shape) {
  return tensor == TensorName::lse || tensor == TensorName::delta ? 1 : shape.head_dim;
}

int64_t element_bytes(const Block& block, const AttentionShape& shape) {
  return num_bytes(block.precision == Precision::input ? shape.element : accumulation_type(shape.element));
}

int64_t payload_bytes(const Block& block, const AttentionShape& shape) {
  return block.rows.size() * block.heads.size() * width(block.tensor, shape) * element_bytes(block, shape);
}

bool is_dense(const Block& block, const AttentionShape& shape) {
  return block.rows.size() <= 1 || block.row_stride == block.heads.size() * width(block.tensor, shape);
}

Block sub_block(const Block& block, Span rows, HeadRange heads, const AttentionShape& shape) {
  EVENSPAN_CHECK_EQ(block.rows.contains(rows) && block.heads.contains(heads), true);
  Block sub = block;
  sub.rows = rows;
  sub.heads = heads;
  sub.offset_bytes += ((rows.begin - block.rows.begin) * block.row_stride +
                       (heads.begin - block.heads.begin) * width(block.tensor, shape)) *
                      element_bytes(block, shape);
  return sub;
}

int64_t sent_bytes(const Program& program, const AttentionShape& shape) {
  int64_t bytes = 0;
  for (const Operation& operation : program.operations) {
    const auto* exchange = std::get_if<Exchange>(&operation.body);
    if (exchange == nullptr) continue;
    for (const Message& message : exchange->sends) {
      for (const Block& block : message.blocks) bytes += payload_bytes(block, shape);
    }
  }
  return bytes;
}

}  // namespace evenspan::plan
