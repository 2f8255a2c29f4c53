// The last step of a block's backward: from gradients of what the products read to those of the operands' rows.
#pragma once

#include "run/linear/chunk_loops.h"

namespace evenspan::run::chunked {

struct BlockGradients {
  at::Tensor key;             // [N, C, key_dim]: of BlockWork::key_down, by way of the pairs
  at::Tensor key_end;         // of a scalar gate's BlockWork::key_end, or of a diagonal one's key_down, by way of the
                              // state that the chunk leaves; in `key` without a gate
  at::Tensor key_unfactored;  // as Reader::grad_unfactored
  at::Tensor written;         // [N, C, value_dim]: of what is written to the state, v_r or beta_r v_r
  at::Tensor sums;            // [N, C]: of a scalar gate's g_r, by way of the pairs
  at::Tensor whole;           // of a gate's g_last, by way of the state that passes the chunk; like Decays::whole
  at::Tensor fixed_gate;      // [N]: of a gate that all tokens share, written here
};

// Writes the chunks' rows of `results`. `readers`: of queries and, with beta, of -beta times keys; `key` [N, C,
// key_dim].
void write_gradients(const LinearOperands& operands, const std::vector<RowRange>& chunks, const Decays& decays,
                     const std::vector<Reader>& readers, const at::Tensor& key, const BlockGradients& gradients,
                     const LinearGradients& results);

}  // namespace evenspan::run::chunked
