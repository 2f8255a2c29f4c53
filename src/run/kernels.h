// The attention kernels of a device, behind one interface.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "evenspan/plan/tile.h"

namespace evenspan::run {

// Operands of one call, views without copies: query, output [rows, heads, dim], key, value [keys, kv_heads, dim],
// lse [rows, heads]. Heads are a multiple of kv heads; no row is without a key; causal calls are square.
struct KernelCall {
  plan::TileKind kind = plan::TileKind::full;
  int64_t first_query = 0, first_key = 0;  // positions in the document, for window and band
  int64_t window = 0;
  at::Tensor query, key, value;
  at::Tensor output, lse, grad_output;  // backward only: final output and log-sum-exp
};
struct KernelResult {
  at::Tensor output;  // [rows, heads, dim], the query's type
  at::Tensor lse;     // [rows, heads], accumulation type
};
struct KernelGradients {
  at::Tensor query, key, value;  // shapes and type of the operands
};

// Runs the calls, in any order or at once; results are in the order of the calls.
std::vector<KernelResult> attend(const std::vector<KernelCall>& calls);
std::vector<KernelGradients> attend_gradient(const std::vector<KernelCall>& calls);

}  // namespace evenspan::run
