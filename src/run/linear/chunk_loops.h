// What the chunkwise form does beside matrix products, in loops over the matrices of a block. Matrices are numbered
// chunk by chunk and, in a chunk, head by head: N = chunks * heads; a chunk has C rows, padded with zeros. All tensors
// but the operands have the accumulation type and are contiguous.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "run/linear/chunk_grid.h"

namespace evenspan::run::chunked {

enum class GateKind { none, scalar, diagonal };

// With g_r the sum of the gates of a chunk's rows up to r. Width: 1 of a scalar gate, key_dim of a diagonal one.
struct Decays {
  GateKind kind = GateKind::none;
  at::Tensor gate;        // [N, C, width]; 0 in padding
  at::Tensor from_begin;  // [N, C, width]: exp(g_r)
  at::Tensor to_end;      // [N, C, width]: exp(g_last - g_r)
  at::Tensor whole;       // [N, width]: exp(g_last)
  // Of a diagonal gate, exp(g_r - m) and exp(m - g_r) for m in the middle of g_first and g_last, so that the decay
  // between two rows is a product; 1 where that would lose digits.
  at::Tensor up, down;  // [N, C, width]
  at::Tensor factored;  // [N], bytes: whether it would not
};

// What reads the state: queries or, with the delta rule, the keys that erase. Row r reads S_r decayed from the state at
// the chunk's begin, and v_i k_i^T of rows i before r (and r, if `itself`).
struct Reader {
  bool itself = false;
  at::Tensor rows;          // [N, C, key_dim]
  at::Tensor up;            // times Decays::up; `rows` if the gate is not diagonal
  at::Tensor decayed;       // times Decays::from_begin; `rows` without a gate
  at::Tensor pairs;         // [N, C, C]: row r with key i
  at::Tensor grad_pairs;    // [N, C, C]
  at::Tensor grad_rows;     // by way of the pairs, without `up`
  at::Tensor grad_decayed;  // by way of the state at the chunk's begin
  at::Tensor grad_itself;   // [N, C]: the diagonal of grad_pairs, 0 there, for a diagonal gate if `itself`
};

// to[n, r, :] = factor * from[row, head, :], times beta[row, head] if that is defined; 0 in padding, of which the last
// dimension may have some as well.
void gather(const at::Tensor& from, const std::vector<RowRange>& chunks, double factor, const at::Tensor& beta,
            const at::Tensor& to);
// to[row, head, :] = from[n, r, :], added to what is there if `add`.
enum class Write { over, add };
void scatter(const at::Tensor& from, const std::vector<RowRange>& chunks, Write write, const at::Tensor& to);

// REQUIRES: the tensors of `decays` are allocated.
void fill_decays(const at::Tensor& gate, const std::vector<RowRange>& chunks, int64_t heads, const Decays& decays);
// to = from times a decay, [N, C, width] (none).
void scale_rows(const at::Tensor& from, const at::Tensor& by, const at::Tensor& to);

// Turns the products of rows (Reader::up) and keys into pairs: decayed, 0 where row r does not read key i.
void decay_pairs(const Decays& decays, const at::Tensor& key, const Reader& reader);
// Turns the gradients of pairs into those of the products. Of a scalar gate, adds to `grad_sums`, [N, C], the gradient
// of each g_r.
void decay_pair_gradients(const Decays& decays, const Reader& reader, const at::Tensor& grad_sums);
// Where the decays do not factor: grad_rows of the readers and grad_key, [N, C, key_dim], instead of those products.
void unfactored_gradients(const Decays& decays, const at::Tensor& key, const std::vector<Reader>& readers,
                          const at::Tensor& grad_key);

// (I - pairs)^-1 of strictly lower triangular matrices.
void invert_unit_lower(const at::Tensor& pairs, const at::Tensor& inverse);

// A step of a recurrence: stack and state [n, key_dim, value_dim], whole [n, width] (undefined: 1). The state goes
// where its increment was: (stack, state) = (state, whole * state + stack); without `increment` what stack holds counts
// as 0.
void step_states(const at::Tensor& stack, const at::Tensor& whole, bool increment, const at::Tensor& state);

}  // namespace evenspan::run::chunked
