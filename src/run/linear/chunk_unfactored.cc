// Rows are taken a few at a time, as in the secondary chunks of GLA (arXiv 2312.06635): from the first of them decays
// go back to every earlier key without a positive exponent, and among themselves they mostly factor. Where not even
// that, each pair has its exponentials.
#include "run/linear/chunk_unfactored.h"

#include <algorithm>

#include "run/linear/chunk_loops.h"
#include "run/linear/chunk_products.h"
#include "run/linear/vector_math.h"

namespace evenspan::run::chunked {
namespace {

constexpr int64_t kPartRows = 16;

template <class W>
EVENSPAN_VECTOR_CLONES void add_gates(const W* gate, int64_t stride, int64_t rows, int64_t dim, double* sums) {
  const auto least = static_cast<W>(kLeastGate);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t d = 0; d < dim; ++d) {
      const double before = r > 0 ? sums[(r - 1) * dim + d] : 0;
      sums[r * dim + d] = before + std::max(gate[r * stride + d], least);
    }
  }
}

// decays[r, :] = exp(sign * (sums[r] - from)), and decayed = decays * rows.
template <class W>
EVENSPAN_VECTOR_CLONES void decay_rows(const double* sums, const double* from, double sign, const W* rows,
                                       int64_t num_rows, int64_t dim, W* decays, W* decayed) {
  for (int64_t r = 0; r < num_rows; ++r) {
    const int64_t at = r * dim;
    for (int64_t d = 0; d < dim; ++d) decays[at + d] = exp_of(static_cast<W>(sign * (sums[at + d] - from[d])));
    for (int64_t d = 0; d < dim; ++d) decayed[at + d] = decays[at + d] * rows[at + d];
  }
}

template <class W>
EVENSPAN_VECTOR_CLONES void add_decayed(const W* decays, const W* grads, int64_t size, W* to) {
  for (int64_t i = 0; i < size; ++i) to[i] += decays[i] * grads[i];
}

template <class W>
EVENSPAN_VECTOR_CLONES double largest_drop(const double* first, const double* last, int64_t dim) {
  double drop = 0;
  for (int64_t d = 0; d < dim; ++d) drop = std::max(drop, first[d] - last[d]);
  return drop;
}

// The pairs of rows and keys [begin, end), one by one.
template <class W>
EVENSPAN_VECTOR_CLONES void pairs_one_by_one(const UnfactoredRows<W>& rows, const double* sums, int64_t begin,
                                             int64_t end, int64_t pairs_stride, W* scratch, W* pairs) {
  const int64_t dim = rows.dim;
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t r = rows.itself ? i : i + 1; r < end; ++r) {
      for (int64_t d = 0; d < dim; ++d) scratch[d] = exp_of(static_cast<W>(sums[r * dim + d] - sums[i * dim + d]));
      for (int64_t d = 0; d < dim; ++d) scratch[d] *= rows.key[i * dim + d];
      pairs[r * pairs_stride + i] = dot(rows.reader + r * dim, scratch, dim);
    }
  }
}

template <class W>
EVENSPAN_VECTOR_CLONES void gradients_one_by_one(const UnfactoredRows<W>& rows, const double* sums, int64_t begin,
                                                 int64_t end, const W* grad_pairs, int64_t pairs_stride, W* scratch,
                                                 W* grad_reader, W* grad_key) {
  const int64_t dim = rows.dim;
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t r = i + 1; r < end; ++r) {
      const W grad = grad_pairs[r * pairs_stride + i];
      for (int64_t d = 0; d < dim; ++d) scratch[d] = exp_of(static_cast<W>(sums[r * dim + d] - sums[i * dim + d]));
      for (int64_t d = 0; d < dim; ++d) {
        const W product = grad * scratch[d];
        grad_reader[r * dim + d] += product * rows.key[i * dim + d];
        grad_key[i * dim + d] += product * rows.reader[r * dim + d];
      }
    }
  }
}

template <class W>
Matrices matrix(const W* first, int64_t rows, int64_t columns, int64_t row_stride) {
  Matrices m;
  m.first = reinterpret_cast<std::byte*>(const_cast<W*>(first));
  m.type = c10::CppTypeToScalarType<W>::value;
  m.count = 1;
  m.rows = rows;
  m.columns = columns;
  m.row_stride = row_stride;
  m.column_stride = 1;
  return m;
}

}  // namespace

template <class W>
void Unfactored<W>::sum_gates(const UnfactoredRows<W>& rows) {
  const auto size = static_cast<size_t>(rows.rows * rows.dim);
  sums_.resize(size);
  for (std::vector<W>* each : {&up_, &down_, &reader_, &key_, &grads_, &between_}) each->resize(size);
  add_gates(rows.gate, rows.stride, rows.rows, rows.dim, sums_.data());
}

template <class W>
typename Unfactored<W>::RowGroup Unfactored<W>::make_part(const UnfactoredRows<W>& rows, int64_t begin) {
  const int64_t dim = rows.dim, end = std::min(begin + kPartRows, rows.rows);
  const double* first = sums_.data() + begin * dim;
  const bool factors = largest_drop<W>(first, sums_.data() + (end - 1) * dim, dim) <= kFactorRange;
  const RowGroup part{begin, end, factors ? end : begin};
  decay_rows(first, first, 1, rows.reader + begin * dim, end - begin, dim, up_.data(), reader_.data());
  decay_rows(sums_.data(), first, -1, rows.key, part.keys, dim, down_.data(), key_.data());
  return part;
}

template <class W>
void Unfactored<W>::pairs(const UnfactoredRows<W>& rows, int64_t pairs_stride, W* pairs) {
  const int64_t dim = rows.dim;
  sum_gates(rows);
  for (int64_t begin = 0; begin < rows.rows; begin += kPartRows) {
    const RowGroup part = make_part(rows, begin);
    const int64_t size = part.end - part.begin;
    multiply(matrix(reader_.data(), size, dim, dim), matrix(key_.data(), part.keys, dim, dim).transposed(), Zeros::none,
             Sum::over, matrix(pairs + begin * pairs_stride, size, part.keys, pairs_stride));
    if (part.keys == part.end) continue;
    pairs_one_by_one(rows, sums_.data(), begin, part.end, pairs_stride, between_.data(), pairs);
  }
}

template <class W>
void Unfactored<W>::gradients(const UnfactoredRows<W>& rows, const W* grad_pairs, int64_t pairs_stride, W* grad_reader,
                              W* grad_key) {
  const int64_t dim = rows.dim;
  sum_gates(rows);
  for (int64_t begin = 0; begin < rows.rows; begin += kPartRows) {
    const RowGroup part = make_part(rows, begin);
    const int64_t size = part.end - part.begin;
    const Matrices grads = matrix(grad_pairs + begin * pairs_stride, size, part.keys, pairs_stride);
    multiply(grads, matrix(key_.data(), part.keys, dim, dim), Zeros::none, Sum::over,
             matrix(grads_.data(), size, dim, dim));
    add_decayed(up_.data(), grads_.data(), size * dim, grad_reader + begin * dim);
    multiply(grads.transposed(), matrix(reader_.data(), size, dim, dim), Zeros::none, Sum::over,
             matrix(grads_.data(), part.keys, dim, dim));
    add_decayed(down_.data(), grads_.data(), part.keys * dim, grad_key);
    if (part.keys == part.end) continue;
    gradients_one_by_one(rows, sums_.data(), begin, part.end, grad_pairs, pairs_stride, between_.data(), grad_reader,
                         grad_key);
  }
}

template class Unfactored<float>;
template class Unfactored<double>;

}  // namespace evenspan::run::chunked
