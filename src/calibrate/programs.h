// Programs of one kind of operation, for the executor to run.
#pragma once

#include <c10/core/Device.h>

#include "evenspan/comm/communicator.h"
#include "evenspan/plan/program.h"
#include "run/interpreter.h"

namespace evenspan::calibrate {

enum class Result : uint8_t { written, merged };  // in place, in the input's type; into accumulated sums of the arena

// Home tensors of random values with so many rows, saved log-sum-exps, and an arena that holds an accumulated copy of
// them.
class Workbench {
 public:
  Workbench(const plan::AttentionShape& shape, int64_t num_rows, c10::Device device, comm::Communicator communicator);

  const plan::AttentionShape& shape() const { return shape_; }
  int64_t num_rows() const { return num_rows_; }
  const comm::Communicator& communicator() const { return communicator_; }
  void run(const plan::Phase& program) const;

  // An operation of so many segments of `queries` x `keys` rows; they lie apart as far as there are rows, and no two
  // share a kernel call.
  plan::Operation attend(plan::TileKind kind, int64_t queries, int64_t keys, int64_t count, Result result) const;
  plan::Operation attend_gradient(plan::TileKind kind, int64_t queries, int64_t keys, int64_t count,
                                  Result result) const;

  // Rows [row, row + rows) of a home tensor, or of saved log-sum-exps; and their place in the arena.
  plan::Block block(plan::TensorName tensor, int64_t row, int64_t rows) const;
  plan::Block arena_block(plan::TensorName tensor, int64_t row, int64_t rows, plan::Precision precision) const;

 private:
  plan::Segment segment(plan::TileKind kind, int64_t queries, int64_t keys, int64_t number) const;

  plan::AttentionShape shape_;
  int64_t num_rows_;
  comm::Communicator communicator_;
  run::Memory memory_;
};

}  // namespace evenspan::calibrate
