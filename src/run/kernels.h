// The attention kernels of a device, behind one interface.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "evenspan/plan/tile.h"

namespace evenspan::run {

// A batch of tiles that are alike, in one call. Operands are views without copies: query, output [tiles, rows, heads,
// dim], key, value [tiles, keys, kv_heads, dim], lse [tiles, rows, heads]; the last dimension is dense, the others have
// any stride. Heads are a multiple of kv heads; no row is without a key; causal calls are square.
struct KernelCall {
  plan::TileKind kind = plan::TileKind::full;
  int64_t first_query = 0,
          first_key = 0;  // positions in the document, for window and band; only their difference counts
  int64_t window = 0;
  at::Tensor query, key, value;                 // of one type
  at::Tensor output, lse;                       // of the query's type and the accumulation type; backward reads them
  at::Tensor grad_output;                       // backward
  at::Tensor grad_query, grad_key, grad_value;  // backward writes them, in the query's type
};

// Runs the calls, in any order or at once. REQUIRES: what one call writes no other call reads or writes.
void attend(const std::vector<KernelCall>& calls);           // writes output and lse
void attend_gradient(const std::vector<KernelCall>& calls);  // writes the three gradients

}  // namespace evenspan::run
