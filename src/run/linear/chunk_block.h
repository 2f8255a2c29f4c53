// The chunkwise form of the affine recurrence, a block of chunks at a time. With every reader's rows R, keys K, both
// decayed as linear_kernel.h says, and state S at a chunk's begin:
//   written   X = V, or with beta (I - pairs of erasing keys)^-1 (beta V + R_erase S), R_erase = -beta K
//   output    O = pairs of queries X + R_query S
//   state     decay S + K^T X
// All in the accumulation type.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <vector>

#include "run/linear/chunk_grid.h"
#include "run/linear/chunk_loops.h"

namespace evenspan::run::chunked {

// The length of chunks that suits the gate, at most `most`.
int64_t chunk_tokens_for(const LinearOperands& operands, int64_t most);

// `tensor`, made or resized where it does not have the sizes.
at::Tensor& fit(at::Tensor* tensor, at::IntArrayRef sizes, const at::TensorOptions& options);

// What of a block may be kept for a later sweep over it.
struct Kept {
  at::Tensor states;                         // without beta
  at::Tensor written, erase_pairs, inverse;  // with beta
};

// Buffers for one block, used again for the next.
class BlockWork {
 public:
  // `state_dim`: columns of the states, at least value_dim; what is more of `written` starts from 0.
  BlockWork(const LinearOperands& operands, int64_t chunk_tokens, int64_t state_dim);

  std::vector<ChunkBlock> blocks(const std::vector<RowRange>& segments) const;
  int64_t chunk_tokens() const { return rows_; }  // rows of a matrix: of the block that is loaded
  bool delta() const { return operands_.beta.defined(); }
  at::TensorOptions options() const { return options_; }

  // Decays, and of the members below those of queries, keys (with beta, of erasing keys too) and values.
  struct Parts {
    bool queries = false, keys = false, values = false;
    bool gradients = false;  // also what nothing but gradients reads
  };
  void load(const ChunkBlock& block, Parts parts);
  void pair_queries();  // query.pairs, of queries and keys
  void solve();         // with beta, erase.pairs and inverse, of keys

  // Carries the runs' states, [runs * heads, key_dim, state_dim], from their begins to their ends. `states` gets those
  // at the chunks' begins. Needs keys, solved, and values.
  void advance(const at::Tensor& current);
  // In place of advance() where all states are 0 and nobody asks for those at the ends: what is written.
  void advance_alone();
  // [N, C, state_dim]. Needs paired queries and values; of the states, queries and what `advance` left.
  enum class Terms { pairs, states, both };
  at::Tensor& output(Terms terms);

  // Moves out what `advance` made, and back in, with the keys loaded again and the same states at the runs' begins.
  Kept release();
  void restore(Kept kept, const at::Tensor& current);

  // Those of a wave's chunks.
  Matrices wave(const Matrices& stack, int64_t wave) const;
  // The states, or their gradients, of the runs that have a chunk in a wave.
  Matrices wave_states(const at::Tensor& current, int64_t wave) const;

  StateDecay wave_decay(int64_t wave) const;
  const ChunkBlock& block() const { return *block_; }
  at::Tensor& fitted(at::Tensor* tensor, int64_t rows, int64_t columns) const;  // [N, rows, columns]

  Decays decays;
  Reader query, erase;
  at::Tensor key;       // [N, C, key_dim], as Reader::rows
  at::Tensor key_down;  // times Decays::down; `key` if the gate is not diagonal
  at::Tensor key_end;   // decayed to the chunk's end, but for Decays::end; `key` without a gate
  at::Tensor key_late;  // with beta: decayed to the chunk's end
  at::Tensor inverse;   // [N, C, C]
  at::Tensor written;   // [N, C, state_dim]
  at::Tensor states;    // [N, key_dim, state_dim], at the chunks' begins

 private:
  Gather gather_reader(const at::Tensor& rows, double factor, const at::Tensor& beta, Reader* reader,
                       at::Tensor* decayed);
  Gather gather_keys();
  void fit_decays();
  void pair(Reader* reader);
  void advance_written(const at::Tensor& current);

  LinearOperands operands_;
  int64_t chunk_tokens_, rows_, heads_, key_dim_, state_dim_, block_chunks_ = 1;
  at::TensorOptions options_;
  const ChunkBlock* block_ = nullptr;
  int64_t matrices_ = 0;
  // Storage of what may also stand for something else above.
  at::Tensor query_decayed_, erase_decayed_, key_down_, key_late_, pre_written_, written_, output_;
};

// The states of a block's runs, and of those that continue in a later block. Backward, blocks come in reverse and what
// runs start from are the gradients at their ends.
class StateCarry {
 public:
  StateCarry(at::IntArrayRef sizes, const at::TensorOptions& options) : sizes_(sizes.vec()), options_(options) {}

  // `initial[segment]`, 0 where it is undefined, for runs that are `fresh`: ChunkRun::first, or backward
  // ChunkRun::last.
  at::Tensor& enter(const ChunkBlock& block, bool ChunkRun::*fresh, const std::vector<at::Tensor>& initial);
  // `take(segment, state)` for runs that are at their segment's other end.
  void leave(const ChunkBlock& block, bool ChunkRun::*done, const std::function<void(size_t, const at::Tensor&)>& take);

 private:
  at::Tensor of_run(size_t run) const;

  std::vector<int64_t> sizes_;  // [heads, key_dim, columns]
  at::TensorOptions options_;
  at::Tensor current_;
  std::map<size_t, at::Tensor> across_;  // by segment
};

}  // namespace evenspan::run::chunked
