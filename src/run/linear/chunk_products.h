// Products of the small matrices that a block of chunks consists of. A library's batches of products read every operand
// from a packed copy, call by call; here each matrix of a stack is multiplied where it lies, triangles count as such,
// and a thread has the matrices of a stack in a row.
#pragma once

#include "run/linear/matrices.h"

namespace evenspan::run::chunked {

// What is known to be 0, and not computed or not read.
enum class Zeros {
  none,
  result_above,  // of the result, which is square, what is above the diagonal may get any value
  left_above,    // of the left matrix above the diagonal
  left_below,
};

enum class Sum { over, add };

// out = left right, or out += left right where `add`, for each matrix of stacks [N, M, K], [N, K, L] and [N, M, L], of
// float32 or float64; of each matrix of `left` and `right`, the elements of a row or those of a column lie side by
// side; `out` has those of a row so. `out` is none of the others. Sums have the type of the operands.
void multiply(const Matrices& left, const Matrices& right, Zeros zeros, Sum sum, const Matrices& out);

}  // namespace evenspan::run::chunked
