// Decays between the rows of a chunk.
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "run/linear/chunk_loops.h"
#include "run/linear/chunk_unfactored.h"
#include "run/linear/vector_math.h"

namespace evenspan::run::chunked {
namespace {

// Sums of a scalar gate and what a pair's decay is made of.
template <class W>
struct ScalarDecays {
  explicit ScalarDecays(int64_t rows) : up(rows), down(rows), row(rows) {}
  const double* sums = nullptr;
  std::vector<W> up, down, row;
  bool factored = false;
};

template <class W>
EVENSPAN_VECTOR_CLONES void set_sums(const double* sums, int64_t rows, ScalarDecays<W>* d) {
  d->sums = sums;
  d->factored = sums[0] - sums[rows - 1] <= kFactorRange;
  if (!d->factored) return;
  W *up = d->up.data(), *down = d->down.data();
  const double middle = (sums[0] + sums[rows - 1]) / 2;
  for (int64_t r = 0; r < rows; ++r) up[r] = exp_of(static_cast<W>(sums[r] - middle));
  for (int64_t r = 0; r < rows; ++r) down[r] = 1 / up[r];
}

// The decays between row r and those before it.
template <class W>
[[gnu::always_inline]] inline void set_row(int64_t r, ScalarDecays<W>* d) {
  W* row = d->row.data();
  const double* sums = d->sums;
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

// Where row r does not read key i.
template <class W>
EVENSPAN_VECTOR_CLONES void clear_unread(int64_t rows, bool itself, W* pairs) {
  for (int64_t r = 0; r < rows; ++r) std::fill(pairs + r * rows + r + (itself ? 1 : 0), pairs + (r + 1) * rows, W(0));
}

// `each(n, state)` for all matrices, with a state of its own for each thread.
template <class Make, class Each>
void for_each(int64_t matrices, int64_t elements_each, Make&& make, Each&& each) {
  at::parallel_for(0, matrices, grain(elements_each), [&](int64_t begin, int64_t end) {
    auto own = make();
    for (int64_t n = begin; n < end; ++n) each(n, &own);
  });
}

// A reader's rows of matrix n under a diagonal gate.
template <class W>
UnfactoredRows<W> rows_of(const Decays& decays, const std::vector<RowRange>& chunks, const at::Tensor& key,
                          const Reader& reader, int64_t n) {
  const int64_t heads = decays.gate.size(1), dim = decays.gate.size(2), size = key.size(1) * dim;
  const RowRange& range = chunks[static_cast<size_t>(n / heads)];
  const W* gate = decays.gate.const_data_ptr<W>() + (range.begin * heads + n % heads) * dim;
  return {
      gate, heads * dim,  reader.rows.const_data_ptr<W>() + n * size, key.const_data_ptr<W>() + n * size, range.size(),
      dim,  reader.itself};
}

}  // namespace

bool Decays::all_factored() const {
  if (kind != GateKind::diagonal) return true;
  const auto* each = factored.const_data_ptr<uint8_t>();
  return std::all_of(each, each + factored.size(0), [](uint8_t one) { return one != 0; });
}

void decay_pairs(const Decays& decays, const std::vector<RowRange>& chunks, const at::Tensor& key,
                 const Reader& reader) {
  const int64_t rows = reader.pairs.size(1);
  AT_DISPATCH_FLOATING_TYPES(key.scalar_type(), "decay_pairs", [&] {
    const auto pairs = [&](int64_t n) { return reader.pairs.mutable_data_ptr<scalar_t>() + n * rows * rows; };
    if (decays.kind == GateKind::scalar) {
      for_each(
          key.size(0), rows * rows, [&] { return ScalarDecays<scalar_t>(rows); },
          [&](int64_t n, ScalarDecays<scalar_t>* d) {
            set_sums(decays.sums.const_data_ptr<double>() + n * rows, rows, d);
            decay_scalar_pairs(rows, reader.itself, d, pairs(n));
          });
      return;
    }
    for_each(
        key.size(0), rows * rows, [] { return Unfactored<scalar_t>(); },
        [&](int64_t n, Unfactored<scalar_t>* unfactored) {
          if (decays.kind == GateKind::diagonal && decays.factored.const_data_ptr<uint8_t>()[n] == 0) {
            unfactored->pairs(rows_of<scalar_t>(decays, chunks, key, reader, n), rows, pairs(n));
          }
          clear_unread(rows, reader.itself, pairs(n));
        });
  });
}

void decay_pair_gradients(const Decays& decays, const Reader& reader, const at::Tensor& grad_sums) {
  const int64_t rows = reader.pairs.size(1), matrices = reader.pairs.size(0);
  AT_DISPATCH_FLOATING_TYPES(reader.pairs.scalar_type(), "decay_pair_gradients", [&] {
    const auto grads = [&](int64_t n) { return reader.grad_pairs.mutable_data_ptr<scalar_t>() + n * rows * rows; };
    for_each(
        matrices, rows * rows, [&] { return ScalarDecays<scalar_t>(rows); },
        [&](int64_t n, ScalarDecays<scalar_t>* d) {
          if (decays.kind == GateKind::scalar) {
            set_sums(decays.sums.const_data_ptr<double>() + n * rows, rows, d);
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

void unfactored_gradients(const Decays& decays, const std::vector<RowRange>& chunks, const at::Tensor& key,
                          const Reader& reader, const at::Tensor& grad_key) {
  const int64_t rows = key.size(1), size = rows * key.size(2);
  AT_DISPATCH_FLOATING_TYPES(key.scalar_type(), "unfactored_gradients", [&] {
    for_each(
        key.size(0), rows * rows, [] { return Unfactored<scalar_t>(); },
        [&](int64_t n, Unfactored<scalar_t>* unfactored) {
          if (decays.factored.const_data_ptr<uint8_t>()[n] != 0) return;
          scalar_t* grad_pairs = reader.grad_pairs.mutable_data_ptr<scalar_t>() + n * rows * rows;
          unfactored->gradients(rows_of<scalar_t>(decays, chunks, key, reader, n), grad_pairs, rows,
                                reader.grad_unfactored.mutable_data_ptr<scalar_t>() + n * size,
                                grad_key.mutable_data_ptr<scalar_t>() + n * size);
          std::fill(grad_pairs, grad_pairs + rows * rows, scalar_t(0));
        });
  });
}

}  // namespace evenspan::run::chunked
