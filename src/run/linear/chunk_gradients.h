// The last step of a block's backward: from gradients of what the products read to those of the operands' rows.
#pragma once

#include "run/linear/chunk_loops.h"

namespace evenspan::run::chunked {

struct BlockGradients {
  at::Tensor key;          // [N, C, key_dim], by way of the pairs; without Decays::down where that is a factor
  at::Tensor key_late;     // by way of the state at the chunk's end, without its decay; undefined without a gate,
                           // where `key` has it, as Reader::grad_rows has grad_decayed
  at::Tensor written;      // [N, C, value_dim]: of what is written to the state, v_r or beta_r v_r
  at::Tensor sums;         // [N, C]: of a scalar gate's g_r, by way of the pairs
  at::Tensor states;       // [N, key_dim, value_dim]: the states at the chunks' begins, and
  at::Tensor grad_states;  // the gradients of those at their ends; only for gates
  at::Tensor fixed_gate;   // [N]: of a gate that all tokens share, written here
};

// Writes the chunks' rows of `results`. `readers`: of queries and, with beta, of -beta times keys; `key` [N, C,
// key_dim].
void write_gradients(const LinearOperands& operands, const std::vector<RowRange>& chunks, const Decays& decays,
                     const std::vector<Reader>& readers, const at::Tensor& key, const BlockGradients& gradients,
                     const LinearGradients& results);

}  // namespace evenspan::run::chunked
