// Decays between the rows of a chunk. No exponential of a positive number is formed but for those up to kFactorRange /
// 2, where the decay between two rows is the product of one that depends on the first and one that depends on the
// second.
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "run/linear/chunk_loops.h"
#include "run/linear/vector_math.h"

namespace evenspan::run::chunked {
namespace {

// The exponents' own rounding errors are relative errors of the factors: at most 16 units in the last place.
constexpr double kFactorRange = 32;
// exp(kLeastGate) is 0 in every type, and sums of it are finite.
constexpr double kLeastGate = -1000;

// Sums of a scalar gate and what a pair's decay is made of.
template <class W>
struct ScalarDecays {
  explicit ScalarDecays(int64_t rows) : sums(rows), up(rows), down(rows), row(rows) {}
  std::vector<double> sums;
  std::vector<W> up, down, row;
  bool factored = false;
};

template <class W>
EVENSPAN_VECTOR_CLONES void set_sums(const W* gate, int64_t rows, ScalarDecays<W>* d) {
  double* sums = d->sums.data();
  double sum = 0;
  for (int64_t r = 0; r < rows; ++r) sums[r] = sum += gate[r];
  d->factored = sums[0] - sum <= kFactorRange;
  if (!d->factored) return;
  W *up = d->up.data(), *down = d->down.data();
  const double middle = (sums[0] + sum) / 2;
  for (int64_t r = 0; r < rows; ++r) up[r] = exp_of(static_cast<W>(sums[r] - middle));
  for (int64_t r = 0; r < rows; ++r) down[r] = 1 / up[r];
}

// The decays between row r and those before it.
template <class W>
[[gnu::always_inline]] inline void set_row(int64_t r, ScalarDecays<W>* d) {
  W* row = d->row.data();
  const double* sums = d->sums.data();
  const W *up = d->up.data(), *down = d->down.data();
  if (d->factored) {
    for (int64_t i = 0; i <= r; ++i) row[i] = up[r] * down[i];
  } else {
    for (int64_t i = 0; i <= r; ++i) row[i] = exp_of(static_cast<W>(sums[r] - sums[i]));
  }
}

template <class W>
EVENSPAN_VECTOR_CLONES void decay_scalar_pairs(int64_t rows, bool itself, ScalarDecays<W>* d, W* pairs) {
  for (int64_t r = 0; r < rows; ++r) {
    set_row(r, d);
    const W* decay = d->row.data();
    W* row = pairs + r * rows;
    for (int64_t i = 0; i <= r; ++i) row[i] *= decay[i];
    std::fill(row + r + (itself ? 1 : 0), row + rows, W(0));
  }
}

template <class W>
EVENSPAN_VECTOR_CLONES void decay_scalar_gradients(const W* pairs, int64_t rows, bool itself, ScalarDecays<W>* d,
                                                   W* grad_pairs, W* grad_sums) {
  for (int64_t r = 0; r < rows; ++r) {
    set_row(r, d);
    const W *decay = d->row.data(), *pair = pairs + r * rows;
    W* row = grad_pairs + r * rows;
    grad_sums[r] += dot(pair, row, r);
    for (int64_t i = 0; i < r; ++i) grad_sums[i] -= pair[i] * row[i];
    for (int64_t i = 0; i <= r; ++i) row[i] *= decay[i];
    std::fill(row + r + (itself ? 1 : 0), row + rows, W(0));
  }
}

template <class W>
EVENSPAN_VECTOR_CLONES void fill_scalar(const W* gate, int64_t stride, int64_t rows, int64_t padded_rows, double* sums,
                                        W* gates, W* from_begin, W* to_end, W* whole) {
  double sum = 0;
  for (int64_t r = 0; r < padded_rows; ++r) {
    gates[r] = r < rows ? std::max(gate[r * stride], static_cast<W>(kLeastGate)) : W(0);
    sums[r] = sum += gates[r];
  }
  for (int64_t r = 0; r < padded_rows; ++r) from_begin[r] = exp_of(static_cast<W>(sums[r]));
  for (int64_t r = 0; r < padded_rows; ++r) to_end[r] = exp_of(static_cast<W>(sum - sums[r]));
  *whole = exp_of(static_cast<W>(sum));
}

// `sums` of the gates after the first row.
template <class W>
EVENSPAN_VECTOR_CLONES bool fill_diagonal(const W* gate, int64_t stride, int64_t rows, int64_t padded_rows, int64_t dim,
                                          double* sums, W* gates, W* from_begin, W* to_end, W* whole, W* up, W* down) {
  const auto least = static_cast<W>(kLeastGate);
  for (int64_t r = 0; r < padded_rows; ++r) {
    for (int64_t d = 0; d < dim; ++d) {
      const W g = r < rows ? std::max(gate[r * stride + d], least) : W(0);
      gates[r * dim + d] = g;
      sums[r * dim + d] = r == 0 ? 0.0 : sums[(r - 1) * dim + d] + g;
    }
  }
  const double* last = sums + (padded_rows - 1) * dim;
  double lowest = 0;
  for (int64_t d = 0; d < dim; ++d) lowest = std::min(lowest, last[d]);
  for (int64_t d = 0; d < dim; ++d) whole[d] = exp_of(static_cast<W>(gates[d] + last[d]));
  if (-lowest > kFactorRange) {
    std::fill(up, up + padded_rows * dim, W(1));
    std::fill(down, down + padded_rows * dim, W(1));
    for (int64_t r = 0; r < padded_rows; ++r) {
      const double* sum = sums + r * dim;
      for (int64_t d = 0; d < dim; ++d) from_begin[r * dim + d] = exp_of(static_cast<W>(gates[d] + sum[d]));
      for (int64_t d = 0; d < dim; ++d) to_end[r * dim + d] = exp_of(static_cast<W>(last[d] - sum[d]));
    }
    return false;
  }
  for (int64_t r = padded_rows; r-- > 0;) {
    const double* sum = sums + r * dim;
    for (int64_t d = 0; d < dim; ++d) up[r * dim + d] = exp_of(static_cast<W>(sum[d] - last[d] / 2));
    for (int64_t d = 0; d < dim; ++d) down[r * dim + d] = 1 / up[r * dim + d];
  }
  // The factors of all rows that are left, in the sums' place.
  for (int64_t d = 0; d < dim; ++d) sums[d] = exp_of(static_cast<W>(gates[d] + last[d] / 2));
  const W* end = up + (padded_rows - 1) * dim;
  for (int64_t r = 0; r < padded_rows; ++r) {
    for (int64_t d = 0; d < dim; ++d) from_begin[r * dim + d] = up[r * dim + d] * static_cast<W>(sums[d]);
    for (int64_t d = 0; d < dim; ++d) to_end[r * dim + d] = down[r * dim + d] * end[d];
  }
  return true;
}

// Where row r does not read key i.
template <class W>
EVENSPAN_VECTOR_CLONES void clear_unread(int64_t rows, bool itself, W* pairs) {
  for (int64_t r = 0; r < rows; ++r) std::fill(pairs + r * rows + r + (itself ? 1 : 0), pairs + (r + 1) * rows, W(0));
}

// The decay of every dimension from row r - 1 to row r, on top of what it was.
template <class W>
[[gnu::always_inline]] inline void add_row(const W* gate, int64_t dim, W* sum, W* decay) {
  for (int64_t d = 0; d < dim; ++d) sum[d] += gate[d];
  for (int64_t d = 0; d < dim; ++d) decay[d] = exp_of(sum[d]);
}

template <class W>
EVENSPAN_VECTOR_CLONES void unfactored_pairs(const W* gate, const W* reader, const W* key, int64_t rows, int64_t dim,
                                             bool itself, W* scratch, W* pairs) {
  W *sum = scratch, *decay = scratch + dim;
  for (int64_t i = 0; i < rows; ++i) {
    std::fill(sum, sum + dim, W(0));
    if (itself) pairs[i * rows + i] = dot(reader + i * dim, key + i * dim, dim);
    for (int64_t r = i + 1; r < rows; ++r) {
      add_row(gate + r * dim, dim, sum, decay);
      for (int64_t d = 0; d < dim; ++d) decay[d] *= key[i * dim + d];
      pairs[r * rows + i] = dot(reader + r * dim, decay, dim);
    }
  }
}

template <class W>
EVENSPAN_VECTOR_CLONES void unfactored_pair_gradients(const W* gate, const W* reader, const W* key, const W* grad_pairs,
                                                      int64_t rows, int64_t dim, W* scratch, W* grad_reader,
                                                      W* grad_key) {
  W *sum = scratch, *decay = scratch + dim;
  for (int64_t i = 0; i < rows; ++i) {
    std::fill(sum, sum + dim, W(0));
    for (int64_t r = i + 1; r < rows; ++r) {
      add_row(gate + r * dim, dim, sum, decay);
      const W grad = grad_pairs[r * rows + i];
      for (int64_t d = 0; d < dim; ++d) {
        const W product = grad * decay[d];
        grad_reader[r * dim + d] += product * key[i * dim + d];
        grad_key[i * dim + d] += product * reader[r * dim + d];
      }
    }
  }
}

// `each(n)` for all matrices, with a state of its own for each thread.
template <class Make, class Each>
void for_each(int64_t matrices, Make&& make, Each&& each) {
  at::parallel_for(0, matrices, 4, [&](int64_t begin, int64_t end) {
    auto own = make();
    for (int64_t n = begin; n < end; ++n) each(n, &own);
  });
}

}  // namespace

void fill_decays(const at::Tensor& gate, const std::vector<RowRange>& chunks, int64_t heads, const Decays& decays) {
  const int64_t rows = decays.gate.size(1), width = decays.gate.size(2), size = rows * width;
  const bool fixed = gate.dim() == 1;
  const int64_t stride = fixed ? 0 : heads * width;
  AT_DISPATCH_FLOATING_TYPES(gate.scalar_type(), "fill_decays", [&] {
    for_each(
        static_cast<int64_t>(chunks.size()) * heads, [&] { return std::vector<double>(size); },
        [&](int64_t n, std::vector<double>* sums) {
          const RowRange& range = chunks[static_cast<size_t>(n / heads)];
          const scalar_t* from = gate.const_data_ptr<scalar_t>() + range.begin * stride + n % heads * width;
          const auto at = [&](const at::Tensor& t, int64_t each) { return t.mutable_data_ptr<scalar_t>() + n * each; };
          if (decays.kind == GateKind::scalar) {
            fill_scalar(from, stride, range.size(), rows, sums->data(), at(decays.gate, size),
                        at(decays.from_begin, size), at(decays.to_end, size), at(decays.whole, 1));
          } else {
            decays.factored.mutable_data_ptr<uint8_t>()[n] =
                fill_diagonal(from, stride, range.size(), rows, width, sums->data(), at(decays.gate, size),
                              at(decays.from_begin, size), at(decays.to_end, size), at(decays.whole, width),
                              at(decays.up, size), at(decays.down, size));
          }
        });
  });
}

void decay_pairs(const Decays& decays, const at::Tensor& key, const Reader& reader) {
  const int64_t rows = reader.pairs.size(1), dim = key.size(2);
  AT_DISPATCH_FLOATING_TYPES(key.scalar_type(), "decay_pairs", [&] {
    const auto pairs = [&](int64_t n) { return reader.pairs.mutable_data_ptr<scalar_t>() + n * rows * rows; };
    if (decays.kind == GateKind::scalar) {
      for_each(
          key.size(0), [&] { return ScalarDecays<scalar_t>(rows); },
          [&](int64_t n, ScalarDecays<scalar_t>* d) {
            set_sums(decays.gate.const_data_ptr<scalar_t>() + n * rows, rows, d);
            decay_scalar_pairs(rows, reader.itself, d, pairs(n));
          });
      return;
    }
    for_each(
        key.size(0), [&] { return std::vector<scalar_t>(2 * dim); },
        [&](int64_t n, std::vector<scalar_t>* scratch) {
          clear_unread(rows, reader.itself, pairs(n));
          if (decays.kind == GateKind::none || decays.factored.const_data_ptr<uint8_t>()[n] != 0) return;
          const auto at = [&](const at::Tensor& t) { return t.const_data_ptr<scalar_t>() + n * rows * dim; };
          unfactored_pairs(at(decays.gate), at(reader.rows), at(key), rows, dim, reader.itself, scratch->data(),
                           pairs(n));
        });
  });
}

void decay_pair_gradients(const Decays& decays, const Reader& reader, const at::Tensor& grad_sums) {
  const int64_t rows = reader.pairs.size(1), matrices = reader.pairs.size(0);
  AT_DISPATCH_FLOATING_TYPES(reader.pairs.scalar_type(), "decay_pair_gradients", [&] {
    const auto grads = [&](int64_t n) { return reader.grad_pairs.mutable_data_ptr<scalar_t>() + n * rows * rows; };
    for_each(
        matrices, [&] { return ScalarDecays<scalar_t>(rows); },
        [&](int64_t n, ScalarDecays<scalar_t>* d) {
          if (decays.kind == GateKind::scalar) {
            set_sums(decays.gate.const_data_ptr<scalar_t>() + n * rows, rows, d);
            decay_scalar_gradients(reader.pairs.const_data_ptr<scalar_t>() + n * rows * rows, rows, reader.itself, d,
                                   grads(n), grad_sums.mutable_data_ptr<scalar_t>() + n * rows);
            return;
          }
          clear_unread(rows, reader.itself, grads(n));
          if (decays.kind == GateKind::none || !reader.itself) return;
          scalar_t* itself = reader.grad_itself.mutable_data_ptr<scalar_t>() + n * rows;
          for (int64_t r = 0; r < rows; ++r) itself[r] = std::exchange(grads(n)[r * rows + r], scalar_t(0));
        });
  });
}

void unfactored_gradients(const Decays& decays, const at::Tensor& key, const std::vector<Reader>& readers,
                          const at::Tensor& grad_key) {
  const int64_t rows = key.size(1), dim = key.size(2), size = rows * dim;
  AT_DISPATCH_FLOATING_TYPES(key.scalar_type(), "unfactored_gradients", [&] {
    for_each(
        key.size(0), [&] { return std::vector<scalar_t>(2 * dim); },
        [&](int64_t n, std::vector<scalar_t>* scratch) {
          if (decays.factored.const_data_ptr<uint8_t>()[n] != 0) return;
          const auto at = [&](const at::Tensor& t) { return t.const_data_ptr<scalar_t>() + n * size; };
          scalar_t* to_key = grad_key.mutable_data_ptr<scalar_t>() + n * size;
          std::fill(to_key, to_key + size, scalar_t(0));
          for (const Reader& reader : readers) {
            scalar_t* to_reader = reader.grad_rows.mutable_data_ptr<scalar_t>() + n * size;
            std::fill(to_reader, to_reader + size, scalar_t(0));
            unfactored_pair_gradients(at(decays.gate), at(reader.rows), at(key),
                                      reader.grad_pairs.const_data_ptr<scalar_t>() + n * rows * rows, rows, dim,
                                      scratch->data(), to_reader, to_key);
          }
        });
  });
}

}  // namespace evenspan::run::chunked
