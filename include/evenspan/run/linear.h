// Linear attention and short convolutions over the placement of a plan.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "evenspan/run/executable.h"
#include "evenspan/run/linear_kernel.h"

namespace evenspan::run {

// The states that a call's spans start from, for a layer that is computed again in backward (activation checkpointing):
// the first call with it fills it, further ones with the same inputs send nothing.
struct SavedStates {
  at::Tensor handle;  // undefined until filled
};

struct LinearOptions {
  std::string transport = "all_gather";  // how states travel: a name that plan::transports() lists
  int32_t state_blocks = 0;  // pipelined: parts of the heads that follow each other; 0: by the links, at most 8
  double scale = 0;          // of the queries, finite; 0: key_dim^-1/2
  bool normalize = false;    // divides by the same sum with values 1 (plain and decayed linear attention)
  bool final_state = false;  // returns the states after the documents' ends
  std::shared_ptr<SavedStates> states;         // null: the call stands for itself; not with final_state
  std::shared_ptr<const LinearKernel> kernel;  // of the local part; null: make_chunked_kernel()
};

struct LinearInput {
  at::Tensor query, key;     // [tokens, heads, key_dim]: this rank's home rows, of the plan's element type
  at::Tensor value;          // [tokens, heads, value_dim]
  at::Tensor gate;           // log decays, at most 0: undefined, [heads], [tokens, heads] or [tokens, heads, key_dim]
  at::Tensor beta;           // undefined or [tokens, heads]: delta rule (linear_kernel.h)
  at::Tensor initial_state;  // undefined, or [documents, heads, key_dim, value_dim] in the accumulation type: read at
                             // the documents that begin on this rank, the others' gradients are 0
};

struct LinearResult {
  at::Tensor output;       // [tokens, heads, value_dim], of value's type
  at::Tensor final_state;  // [documents, heads, key_dim, value_dim] in the accumulation type, 0 for documents that end
                           // on another rank; undefined unless asked for
};

// The recurrence of linear_kernel.h along every document, from its initial state or 0, whatever ranks hold its spans.
// The heads and dimensions need not be those of the plan's attention.
// Differentiable in all inputs; forward and backward exchange with the other ranks, so every rank calls both, in the
// same order and with the same options. The gradient of a gate [heads] is this rank's part: the sum over the ranks is
// the whole, as with any parameter. Throws invalid_argument, before anything is sent, for tensors that do not fit, a
// gate above 0 (a decay above 1), a beta or a scale that is not finite, or an unknown transport; when normalize divides
// by 0; communication when a rank fails.
LinearResult linear_attention(const LinearInput& input, const Executable& executable,
                              const LinearOptions& options = {});

// Causal convolution along each document, channel by channel, with zeros before its begin:
//   y[t, c] = bias[c] + sum over i in [0, width) of weight[c, i] * x[t - (width - 1) + i, c].
//   x [tokens, channels]: this rank's home rows; weight [channels, width]; bias [channels] or undefined.
// Rows before a span that other ranks hold come from them, and their gradients go back. Differentiable; every rank
// calls forward and backward. Throws as linear_attention.
at::Tensor short_convolution(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                             const Executable& executable);

}  // namespace evenspan::run
