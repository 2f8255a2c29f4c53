// A tile of the result, a few rows by two vectors, stays in registers while the inner dimension goes by. Rows of the
// right matrix are vectors; where its columns lie side by side, or its rows are no whole vectors, it is packed first.
// Compiled with contraction: every step is one fused multiply-add where the processor has one.
#include "run/linear/chunk_products.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

namespace evenspan::run::chunked {
namespace {

constexpr int64_t kTileVectors = 2;
constexpr int64_t kProductsPerThread = 1 << 20;  // of numbers: fewer are not worth one

template <class W, int bytes>
struct Vector {
  typedef W Type __attribute__((vector_size(bytes)));
  static constexpr int64_t kLanes = bytes / static_cast<int64_t>(sizeof(W));
};

// Element (i, k) is at first[i * row + k * column].
template <class W>
struct Matrix {
  const W* first;
  int64_t row, column;
};

template <class W>
struct Product {
  Matrix<W> left, right;
  W* out;
  int64_t rows, inner, columns, out_row;
  Zeros zeros;
  bool add;
};

// [inner, columns], rows padded with 0 to whole vectors.
template <class W>
struct Rows {
  const W* first;
  int64_t row;
};

template <class V, class W>
[[gnu::always_inline]] inline void load(const W* from, V* to) {
  std::memcpy(to, from, sizeof(V));
}

// out[rows, vectors] (+)= left[rows, begin..end] right[begin..end, vectors], of which `columns` are wanted.
template <class V, int rows, int vectors, class W>
[[gnu::always_inline]] inline void tile(const Matrix<W>& left, const Rows<W>& right, int64_t begin, int64_t end,
                                        int64_t columns, bool add, W* out, int64_t out_row) {
  constexpr int64_t kLanes = static_cast<int64_t>(sizeof(V) / sizeof(W));
  V sums[rows][vectors] = {};
  const W* l = left.first + begin * left.column;
  const W* r = right.first + begin * right.row;
  for (int64_t k = begin; k < end; ++k, l += left.column, r += right.row) {
    V b[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) load(r + v * kLanes, &b[v]);
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
      const W a = l[i * left.row];
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sums[i][v] += a * b[v];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      W* to = out + i * out_row + v * kLanes;
      const int64_t wanted = columns - v * kLanes;
      if (wanted >= kLanes) {
        if (add) {
          V before;
          load(to, &before);
          sums[i][v] += before;
        }
        std::memcpy(to, &sums[i][v], sizeof(V));
      } else if (wanted > 0) {
        W rest[kLanes];
        std::memcpy(rest, &sums[i][v], sizeof(V));
        for (int64_t c = 0; c < wanted; ++c) to[c] = add ? to[c] + rest[c] : rest[c];
      }
    }
  }
}

// The rows of the result from `i` on, `rows` of them.
template <class V, int rows, class W>
[[gnu::always_inline]] inline void band(const Product<W>& p, const Rows<W>& right, int64_t i) {
  constexpr int64_t kLanes = static_cast<int64_t>(sizeof(V) / sizeof(W));
  const int64_t begin = p.zeros == Zeros::left_below ? std::min(i, p.inner) : 0;
  const int64_t end = p.zeros == Zeros::left_above ? std::min(i + rows, p.inner) : p.inner;
  const int64_t columns = p.zeros == Zeros::result_above ? std::min(i + rows, p.columns) : p.columns;
  const Matrix<W> left{p.left.first + i * p.left.row, p.left.row, p.left.column};
  for (int64_t c = 0; c < columns; c += kTileVectors * kLanes) {
    const Rows<W> from{right.first + c, right.row};
    W* to = p.out + i * p.out_row + c;
    if (columns - c > kLanes) {
      tile<V, rows, kTileVectors>(left, from, begin, end, p.columns - c, p.add, to, p.out_row);
    } else {
      tile<V, rows, 1>(left, from, begin, end, p.columns - c, p.add, to, p.out_row);
    }
  }
}

// Of a square of lanes by lanes elements.
#if defined(__GNUC__) && !defined(__clang__)
template <class V, class W>
[[gnu::always_inline]] inline void transpose(const W* from, int64_t from_row, W* to, int64_t to_row) {
  constexpr int kLanes = static_cast<int>(sizeof(V) / sizeof(W));
  using Index = std::conditional_t<sizeof(W) == 4, int32_t, int64_t>;
  typedef Index Mask __attribute__((vector_size(sizeof(V))));
  V r[kLanes];
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) load(from + i * from_row, &r[i]);
#pragma GCC unroll 4
  for (int half = 1; half < kLanes; half *= 2) {
    Mask even, odd;
#pragma GCC unroll 16
    for (int lane = 0; lane < kLanes; ++lane) {
      even[lane] = (lane & half) == 0 ? lane : kLanes + lane - half;
      odd[lane] = (lane & half) == 0 ? lane + half : kLanes + lane;
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) {
      if ((i & half) != 0) continue;
      const V a = r[i], b = r[i + half];
      r[i] = __builtin_shuffle(a, b, even);
      r[i + half] = __builtin_shuffle(a, b, odd);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) std::memcpy(to + i * to_row, &r[i], sizeof(V));
}
#else
template <class V, class W>
[[gnu::always_inline]] inline void transpose(const W* from, int64_t from_row, W* to, int64_t to_row) {
  constexpr auto kLanes = static_cast<int64_t>(sizeof(V) / sizeof(W));
  for (int64_t i = 0; i < kLanes; ++i) {
    for (int64_t j = 0; j < kLanes; ++j) to[j * to_row + i] = from[i * from_row + j];
  }
}
#endif

template <class V, class W>
[[gnu::always_inline]] inline void pack(const Matrix<W>& m, int64_t inner, int64_t columns, W* to, int64_t to_row) {
  constexpr int64_t kLanes = static_cast<int64_t>(sizeof(V) / sizeof(W));
  int64_t whole_inner = 0, whole_columns = 0;
  if (m.row == 1) {
    whole_inner = inner / kLanes * kLanes;
    whole_columns = columns / kLanes * kLanes;
    for (int64_t c = 0; c < whole_columns; c += kLanes) {
      for (int64_t k = 0; k < whole_inner; k += kLanes) {
        transpose<V>(m.first + c * m.column + k, m.column, to + k * to_row + c, to_row);
      }
    }
  }
  for (int64_t k = 0; k < inner; ++k) {
    const int64_t done = k < whole_inner ? whole_columns : 0;
    for (int64_t c = done; c < columns; ++c) to[k * to_row + c] = m.first[k * m.row + c * m.column];
    std::fill(to + k * to_row + columns, to + (k + 1) * to_row, W(0));
  }
}

template <class W, int bytes, int tile_rows>
[[gnu::always_inline]] inline void multiply_one(const Product<W>& p, std::vector<W>* packed) {
  using V = typename Vector<W, bytes>::Type;
  constexpr int64_t kLanes = Vector<W, bytes>::kLanes;
  Rows<W> right{p.right.first, p.right.row};
  if (p.right.column != 1 || p.columns % kLanes != 0) {
    const int64_t padded = (p.columns + kLanes - 1) / kLanes * kLanes;
    if (packed->size() < static_cast<size_t>(p.inner * padded)) packed->resize(static_cast<size_t>(p.inner * padded));
    pack<V>(p.right, p.inner, p.columns, packed->data(), padded);
    right = {packed->data(), padded};
  }
  int64_t i = 0;
  for (; i + tile_rows <= p.rows; i += tile_rows) band<V, tile_rows>(p, right, i);
  for (; i < p.rows; ++i) band<V, 1>(p, right, i);
}

template <class W>
using MultiplyOne = void (*)(const Product<W>& p, std::vector<W>* packed);

template <class W>
void multiply_128(const Product<W>& p, std::vector<W>* packed) {
  multiply_one<W, 16, 4>(p, packed);
}
#if defined(__x86_64__)
template <class W>
__attribute__((target("avx2,fma"))) void multiply_256(const Product<W>& p, std::vector<W>* packed) {
  multiply_one<W, 32, 4>(p, packed);
}
template <class W>
__attribute__((target("avx512f"))) void multiply_512(const Product<W>& p, std::vector<W>* packed) {
  multiply_one<W, 64, 8>(p, packed);
}
#endif

// For the vector units of the processor at hand.
template <class W>
MultiplyOne<W> multiply_here() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") != 0) return multiply_512<W>;
  if (__builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0) return multiply_256<W>;
#endif
  return multiply_128<W>;
}

}  // namespace

void multiply(const Matrices& left, const Matrices& right, Zeros zeros, Sum sum, const Matrices& out) {
  const int64_t rows = left.rows, inner = left.columns, columns = right.columns;
  AT_DISPATCH_FLOATING_TYPES(out.type, "multiply", [&] {
    static const MultiplyOne<scalar_t> multiply_one = multiply_here<scalar_t>();
    const auto matrix = [](const Matrices& m, int64_t n) {
      return Matrix<scalar_t>{m.of<scalar_t>(n), m.row_stride, m.column_stride};
    };
    at::parallel_for(0, out.count, 1 + kProductsPerThread / (1 + rows * inner * columns),
                     [&](int64_t begin, int64_t end) {
                       std::vector<scalar_t> packed;
                       for (int64_t n = begin; n < end; ++n) {
                         multiply_one({matrix(left, n), matrix(right, n), out.of<scalar_t>(n), rows, inner, columns,
                                       out.row_stride, zeros, sum == Sum::add},
                                      &packed);
                       }
                     });
  });
}

}  // namespace evenspan::run::chunked
