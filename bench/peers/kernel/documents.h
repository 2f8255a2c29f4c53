// Attention of documents that lie one after another, on the executor's kernels: what every system of the comparison
// computes with.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace evenspan::bench {

// Document i has the query rows [queries[i], queries[i + 1]) and the key rows [keys[i], keys[i + 1]). Bounds ascend
// from 0. A causal document's last query sees all its keys, the one before it all but the last, and so on.
struct Documents {
  std::vector<int64_t> queries, keys;
  bool causal = false;
};

// query, output [rows, heads, dim]; key, value [keys, kv_heads, dim]; lse [rows, heads] of the accumulation type. The
// last dimension of all but lse is dense, the others have any stride.
struct Operands {
  at::Tensor query, key, value, output, lse;
};
struct Gradients {
  at::Tensor output;             // read
  at::Tensor query, key, value;  // written
};

// Writes output and lse. A query without a key has output 0 and lse minus infinity.
void attend(const Documents& documents, const Operands& x);
// Writes the gradients of query, key and value; reads everything else.
void attend_gradient(const Documents& documents, const Operands& x, const Gradients& gradients);

// The same of [tiles, rows, heads, dim] and lse [tiles, rows, heads]: tiles of one shape.
void attend_tiles(const Operands& x, bool causal);
void attend_tiles_gradient(const Operands& x, const Gradients& gradients, bool causal);

// Pairs of a query and a key, for each query head, that this process has attended to.
struct Pairs {
  int64_t forward = 0, backward = 0;
};
Pairs pairs();
void set_pairs(const Pairs& pairs);

}  // namespace evenspan::bench
