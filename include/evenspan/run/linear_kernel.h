// The local part of linear attention: what one rank computes of an affine recurrence, and the hook for who has a kernel
// of their own for it.
//
// For each head: S_t = A_t S_{t-1} + b_t k_t v_t^T and o_t = scale * S_t^T q_t, with S in R^{key_dim x value_dim}.
//   gate undefined         A_t = I
//   gate [heads]           A_t = exp(gate_h) I, the same for all tokens (Lightning Attention, RetNet, LASP)
//   gate [n, heads]        A_t = exp(gate_th) I (Mamba-2, simple GLA)
//   gate [n, heads, dk]    A_t = Diag(exp(gate_th)) (GLA, HGRN2)
//   with beta [n, heads]   A_t = (I - beta_t k_t k_t^T) times the A_t above, b_t = beta_t (DeltaNet, Gated DeltaNet,
//   KDA);
//                          otherwise b_t = 1
// Gates are logarithms of decays, at most 0.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "evenspan/core/ranges.h"

namespace evenspan::run {

using RowRange = Range<struct RowRangeTag, int64_t>;  // rows of a rank's tensors

// Of a rank's rows. Gate and beta have the accumulation type (float64 for float64 input, otherwise float32) and are
// contiguous; the last dimension of the others is.
struct LinearOperands {
  at::Tensor query, key;  // [n, heads, key_dim]
  at::Tensor value;       // [n, heads, value_dim]
  at::Tensor gate;        // undefined, [heads], [n, heads] or [n, heads, key_dim]
  at::Tensor beta;        // undefined or [n, heads]
  double scale = 1;
};

// Each like its operand, allocated, undefined where the operand is; gate, [heads] as well, and beta in the accumulation
// type.
struct LinearGradients {
  at::Tensor query, key, value, gate, beta;
};

// The affine map of a segment, S -> M S + E, in the accumulation type.
struct LinearSummary {
  at::Tensor state;       // E, [heads, key_dim, value_dim]
  at::Tensor transition;  // log M: undefined without beta where gate is undefined or [heads]; [heads, 1] of gate
                          // [n, heads]; [heads, key_dim] of [n, heads, key_dim]. With beta M itself, [heads, key_dim,
                          // key_dim]
};

// A forward pass over some segments of rows. Segments of one pass are disjoint, none is empty, and a segment is the
// same range in every call; each is a recurrence of its own. Calls for one segment come in this order: summarize (or
// not), intra, apply (or not).
class LinearForward {
 public:
  virtual ~LinearForward() = default;
  // Writes the maps of the segments into `summaries`, which are allocated. May keep what intra and apply use again.
  virtual void summarize(const std::vector<RowRange>& segments, const std::vector<LinearSummary>& summaries) = 0;
  // What needs no incoming state. Where `pending[s]` is 0, no apply follows and the segment starts from S = 0: its rows
  // of the output are complete when this returns. Where it is 1, they are after apply.
  virtual void intra(const std::vector<RowRange>& segments, const std::vector<char>& pending) = 0;
  // Completes the output rows of segments that start from `states`, [heads, key_dim, value_dim] each.
  virtual void apply(const std::vector<RowRange>& segments, const std::vector<at::Tensor>& states) = 0;
};

// A backward pass. As LinearForward, in reverse: the gradient of a segment's outgoing state comes in.
class LinearBackward {
 public:
  virtual ~LinearBackward() = default;
  // Writes into `grad_states` the gradients of the segments' incoming states when those of the outgoing ones are 0.
  // They do not depend on the incoming states.
  virtual void summarize(const std::vector<RowRange>& segments, const std::vector<at::Tensor>& grad_states) = 0;
  // `states[s]`: what the segment started from; undefined for 0. Where `pending[s]` is 0, the outgoing state has no
  // gradient, and the segment's rows of all gradients are complete when this returns.
  virtual void intra(const std::vector<RowRange>& segments, const std::vector<at::Tensor>& states,
                     const std::vector<char>& pending) = 0;
  // Completes the gradients of segments whose outgoing states have the gradients `grad_states`.
  virtual void apply(const std::vector<RowRange>& segments, const std::vector<at::Tensor>& states,
                     const std::vector<at::Tensor>& grad_states) = 0;
  // After all segments: a gate [heads] gets its gradient, the sum over the segments.
  virtual void finish() = 0;
};

// Immutable; passes are independent of each other. Kernels may keep references to the operands during a pass.
class LinearKernel {
 public:
  virtual ~LinearKernel() = default;
  // `output`: [n, heads, value_dim] of value's type, written in place, rows of no segment untouched.
  virtual std::unique_ptr<LinearForward> forward(const LinearOperands& operands, const at::Tensor& output) const = 0;
  virtual std::unique_ptr<LinearBackward> backward(const LinearOperands& operands, const at::Tensor& grad_output,
                                                   const LinearGradients& gradients) const = 0;
};

// Chunkwise parallel forms, of products of small matrices, on the CPU.
std::shared_ptr<const LinearKernel> make_chunked_kernel(int64_t chunk_tokens = 64);

// One segment: operands of its rows alone and the state before it, [heads, key_dim, value_dim]; returns output, [rows,
// heads, value_dim], and the state after it. Differentiable by autograd in all tensors.
using LinearFunctionOfSegment =
    std::function<std::pair<at::Tensor, at::Tensor>(const LinearOperands& operands, const at::Tensor& state)>;
// The hook for a kernel of one's own, such as one of flash-linear-attention: all that a rank needs beyond a segment's
// output follows from the function's linearity in the state and from its gradients. Backward runs it again.
std::shared_ptr<const LinearKernel> make_function_kernel(LinearFunctionOfSegment function);

}  // namespace evenspan::run
