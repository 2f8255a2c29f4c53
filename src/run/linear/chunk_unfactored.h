// The pairs of a chunk whose diagonal decays do not factor over all of its rows: over a few of them they mostly do.
#pragma once

#include <cstdint>
#include <vector>

namespace evenspan::run::chunked {

// One matrix's rows. `gate`: of the operand, `stride` from row to row; the others are contiguous, [rows, dim].
template <class W>
struct UnfactoredRows {
  const W* gate;
  int64_t stride;
  const W *reader, *key;
  int64_t rows, dim;
  bool itself;  // row r reads key r
};

// With scratch of its own, for one thread. float32 and float64.
template <class W>
class Unfactored {
 public:
  // pairs[r * pairs_stride + i] of every row r and key i before it, and r itself where it reads that. What is above the
  // diagonal may get any value.
  void pairs(const UnfactoredRows<W>& rows, int64_t pairs_stride, W* pairs);
  // Adds to both, [rows, dim], what pairs of different rows have; `grad_pairs` is 0 elsewhere.
  void gradients(const UnfactoredRows<W>& rows, const W* grad_pairs, int64_t pairs_stride, W* grad_reader, W* grad_key);

 private:
  // Some consecutive rows, and the decays between each of them and all before it as up * down.
  struct RowGroup {
    int64_t begin, end;
    int64_t keys;  // those that decay so: all up to `end`, or to `begin` where the rows' own decays do not factor
  };
  RowGroup make_part(const UnfactoredRows<W>& rows, int64_t begin);
  void sum_gates(const UnfactoredRows<W>& rows);

  std::vector<double> sums_;                                   // of gates, from the first row
  std::vector<W> up_, down_, reader_, key_, grads_, between_;  // reader_ and key_: times up_ and down_
};

}  // namespace evenspan::run::chunked
