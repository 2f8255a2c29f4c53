// What the chunkwise form does beside matrix products, in loops over the matrices of a block. Matrices are numbered
// chunk by chunk and, in a chunk, head by head: N = chunks * heads; a chunk has C rows, padded with zeros. All tensors
// but the operands have the accumulation type and are contiguous.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "run/linear/chunk_grid.h"
#include "run/linear/matrices.h"

namespace evenspan::run::chunked {

enum class GateKind { none, scalar, diagonal };

// No exponential of a positive number is formed but for those up to this, where the decay between two rows is the
// product of one that depends on the first and one that depends on the second (of a scalar gate: up to half of this).
// The exponents' own rounding errors are relative errors of the factors: at most 16 units in the last place.
constexpr double kFactorRange = 32;
// Gates below count as this: its exponential is 0 in every type, and sums of it are finite.
constexpr double kLeastGate = -1000;

// With g_r the sum of the gates of a chunk's rows up to r.
struct Decays {
  GateKind kind = GateKind::none;
  at::Tensor gate;   // the operand
  at::Tensor whole;  // [N, 1], diagonal [N, key_dim]: exp(g_last)
  // Of a scalar gate.
  at::Tensor sums;        // [N, C], float64: g_r
  at::Tensor from_begin;  // [N, C]: exp(g_r)
  at::Tensor to_end;      // [N, C]: exp(g_last - g_r)
  // Of a diagonal gate.
  at::Tensor factored;  // [N], bytes: whether the decay between two rows is up * down, which loses digits elsewhere
  at::Tensor up;        // [N, C, key_dim]: exp(g_r)
  at::Tensor down;      // [N, C, key_dim]: exp(-g_r); where the decays do not factor, exp(g_last - g_r)
  at::Tensor end;       // [N, key_dim]: what `down` lacks to the chunk's end, exp(g_last) or 1
  bool keeps = false;   // `up` and `down`, for gradients
  bool all_factored() const;  // of a diagonal gate; otherwise true
};

// What reads the state: queries or, with the delta rule, the keys that erase. Row r reads the state at the chunk's
// begin and what rows before r (and r, if `itself`) wrote, decayed until r.
struct Reader {
  bool itself = false;
  at::Tensor rows;     // [N, C, key_dim]; for a diagonal gate only if Decays::keeps or where the decays do not factor
  at::Tensor up;       // times Decays::up; `rows` if the gate is not diagonal
  at::Tensor decayed;  // times exp(g_r); `rows` without a gate
  at::Tensor pairs;    // [N, C, C]: row r with key i
  at::Tensor grad_pairs;       // [N, C, C]
  at::Tensor grad_rows;        // of `up`
  at::Tensor grad_decayed;     // of a scalar gate's `decayed`; in grad_rows otherwise
  at::Tensor grad_itself;      // [N, C]: the diagonal of grad_pairs, 0 there, for a diagonal gate if `itself`
  at::Tensor grad_unfactored;  // of `rows` by way of the pairs, where decays do not factor; undefined if all do
};

// to[n, r, :] = factor * from[row, head, :], times beta[row, head] if that is defined; 0 in padding, of which the last
// dimension may have some as well.
struct Gather {
  at::Tensor from;
  double factor = 1;
  at::Tensor beta;
  at::Tensor to;
  enum class Decay { none, from_begin, to_end } decay = Decay::none;
  at::Tensor near;  // for a diagonal gate: times Decays::up (from_begin) or Decays::down (to_end)
  at::Tensor far;   // decayed from the chunk's begin or to its end
};
// Fills the decays, whose tensors are allocated, and what is gathered. The decays of a diagonal gate do not factor if
// nothing is gathered that decays from the begin.
void load(const std::vector<RowRange>& chunks, int64_t heads, const Decays& decays, const std::vector<Gather>& gathers);
// From an element of the rows of `head` in a chunk of operand or result `t` to the same one of the matrix after it, of
// the next head or of the first one in the next chunk: what loops over matrices prefetch.
int64_t ahead(const at::Tensor& t, int64_t head, int64_t chunk_tokens);
// to[row, head, :] = from[n, r, :], added to what is there if `add`.
enum class Write { over, add };
void scatter(const at::Tensor& from, const std::vector<RowRange>& chunks, Write write, const at::Tensor& to);

// Turns the products of rows (Reader::up) and keys into pairs: decayed, 0 where row r does not read key i.
void decay_pairs(const Decays& decays, const std::vector<RowRange>& chunks, const at::Tensor& key,
                 const Reader& reader);
// Turns the gradients of pairs into those of the products. Of a scalar gate, adds to `grad_sums`, [N, C], the gradient
// of each g_r.
void decay_pair_gradients(const Decays& decays, const Reader& reader, const at::Tensor& grad_sums);
// Where the decays do not factor: adds to the reader's grad_unfactored and to `grad_key`, [N, C, key_dim], and leaves
// no gradient of its pairs to the products.
void unfactored_gradients(const Decays& decays, const std::vector<RowRange>& chunks, const at::Tensor& key,
                          const Reader& reader, const at::Tensor& grad_key);

// (I - pairs)^-1 of strictly lower triangular matrices.
void invert_unit_lower(const at::Tensor& pairs, const at::Tensor& inverse);

// What a chunk's step does to its state, beside what is written. Undefined: 1.
struct StateDecay {
  Matrices whole, end;  // [n, 1] or [n, key_dim]: Decays::whole, Decays::end
};
// Steps of the recurrence: stack and state [n, key_dim, value_dim].
enum class Recurrence {
  increment,  // (stack, state) = (state, whole * state + end * stack)
  decay,      // (stack, state) = (state, whole * state)
};
void step_states(const Matrices& stack, const StateDecay& decay, Recurrence step, const Matrices& state);
// A step of the gradients: (stack, grad) = (end * grad, whole * grad + stack). Where `grad_whole`, like `whole`, is
// defined, it gets the gradient of g_last by way of what the chunk leaves of `before`, the states at its begin.
void step_back(const Matrices& stack, const StateDecay& decay, const Matrices& grad, const Matrices& before,
               const Matrices& grad_whole);

}  // namespace evenspan::run::chunked
