#include "calibrate/programs.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include "run/entry.h"

namespace evenspan::calibrate {

using plan::Block;
using plan::BufferId;
using plan::Precision;
using plan::TensorName;

namespace {

constexpr int kNumRowTensors = static_cast<int>(TensorName::gate);  // the others are of linear attention

bool of_keys(TensorName tensor) {
  return tensor == TensorName::key || tensor == TensorName::value || tensor == TensorName::grad_key ||
         tensor == TensorName::grad_value;
}

}  // namespace

Workbench::Workbench(const plan::AttentionShape& shape, int64_t num_rows, c10::Device device,
                     comm::Communicator communicator)
    : shape_(shape), num_rows_(num_rows), communicator_(std::move(communicator)) {
  const auto options = at::TensorOptions().device(device);
  for (int t = 0; t < kNumRowTensors; ++t) {
    const auto tensor = static_cast<TensorName>(t);
    if (tensor == TensorName::lse) continue;
    const int64_t heads = of_keys(tensor) ? shape.num_kv_heads : shape.num_heads;
    memory_.home[static_cast<size_t>(t)] =
        at::randn({num_rows, heads, shape.head_dim}, options).to(run::scalar_type(shape.element));
  }
  const int64_t element = num_bytes(plan::accumulation_type(shape.element));
  const int64_t widest = num_rows * shape.num_heads * shape.head_dim * element;
  const auto zeros = [&](int64_t bytes) { return at::zeros({bytes}, options.dtype(at::kByte)); };
  memory_.buffers = {at::Tensor(), zeros(kNumRowTensors * widest), zeros(num_rows * shape.num_heads * element)};
}

void Workbench::run(const plan::Phase& program) const {
  const at::AutoDispatchBelowADInplaceOrView guard;
  run::run_phase(program, shape_, memory_, communicator_, "calibrate");
}

Block Workbench::block(TensorName tensor, int64_t row, int64_t rows) const {
  Block block;
  block.tensor = tensor;
  const bool is_lse = tensor == TensorName::lse;
  block.buffer = is_lse ? BufferId::saved : BufferId::home;
  block.precision = is_lse ? Precision::accumulation : Precision::input;
  block.rows = Span{row, row + rows};
  block.heads = HeadRange{0, of_keys(tensor) ? shape_.num_kv_heads : shape_.num_heads};
  block.row_stride = block.heads.size() * plan::width(tensor, shape_);
  block.offset_bytes = row * block.row_stride * plan::element_bytes(block, shape_);
  return block;
}

Block Workbench::arena_block(TensorName tensor, int64_t row, int64_t rows, Precision precision) const {
  Block block = this->block(tensor, row, rows);
  block.buffer = BufferId::arena;
  block.precision = precision;
  const int64_t tensor_bytes = memory_.buffers[static_cast<size_t>(BufferId::arena)].numel() / kNumRowTensors;
  block.offset_bytes =
      static_cast<int64_t>(tensor) * tensor_bytes + row * block.row_stride * plan::element_bytes(block, shape_);
  return block;
}

// Segments go from the last rows to the first, so that no view holds two of them.
plan::Segment Workbench::segment(plan::TileKind kind, int64_t queries, int64_t keys, int64_t number) const {
  const int64_t longer = std::max(queries, keys);
  const int64_t places = num_rows_ / longer;
  const int64_t row = (places - 1 - number % places) * longer;
  plan::Segment segment;
  segment.kind = kind;
  segment.query = block(TensorName::query, row, queries);
  segment.key = block(TensorName::key, row, keys);
  segment.value = block(TensorName::value, row, keys);
  return segment;
}

plan::Operation Workbench::attend(plan::TileKind kind, int64_t queries, int64_t keys, int64_t count,
                                  Result result) const {
  const bool merged = result == Result::merged;
  plan::Attend attend;
  for (int64_t i = 0; i < count; ++i) {
    const plan::Segment one = segment(kind, queries, keys, i);
    const int64_t row = one.query.rows.begin;
    const auto target = [&](TensorName tensor) {
      return merged ? arena_block(tensor, row, queries, Precision::accumulation) : block(tensor, row, queries);
    };
    attend.items.push_back({one, target(TensorName::output), target(TensorName::lse), merged});
  }
  return {{}, plan::kNoEvent, std::move(attend)};
}

plan::Operation Workbench::attend_gradient(plan::TileKind kind, int64_t queries, int64_t keys, int64_t count,
                                           Result result) const {
  const bool merged = result == Result::merged;
  plan::AttendGradient attend;
  for (int64_t i = 0; i < count; ++i) {
    plan::BackwardSegment one{segment(kind, queries, keys, i), {}, {}, {}, {}, {}, {}};
    const int64_t row = one.query.rows.begin;
    one.output = block(TensorName::output, row, queries);
    one.lse = block(TensorName::lse, row, queries);
    const auto target = [&](TensorName tensor, int64_t rows) {
      return plan::GradientTarget{
          merged ? arena_block(tensor, row, rows, Precision::accumulation) : block(tensor, row, rows), merged};
    };
    one.grad_output = block(TensorName::grad_output, row, queries);
    one.grad_query = target(TensorName::grad_query, queries);
    one.grad_key = target(TensorName::grad_key, keys);
    one.grad_value = target(TensorName::grad_value, keys);
    attend.items.push_back(one);
  }
  return {{}, plan::kNoEvent, std::move(attend)};
}

}  // namespace evenspan::calibrate
