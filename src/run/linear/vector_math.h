// Arithmetic for loops that the compiler vectorises.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

// Compiles a function for the vector units of several processors; the one at hand decides when the program is loaded,
// before the thread sanitizer is ready for it. Results do not depend on it: nothing is reassociated or contracted.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__)
#define EVENSPAN_VECTOR_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define EVENSPAN_VECTOR_CLONES
#endif

namespace evenspan::run::chunked {

// For at::parallel_for over matrices: how many are worth a thread.
inline int64_t grain(int64_t elements_each) { return 1 + 16384 / (1 + elements_each); }

// Of the operands: a row of the next head, which is read next.
template <class T>
[[gnu::always_inline]] inline void prefetch(const T* row, int64_t dim) {
  constexpr auto kLine = static_cast<int64_t>(64 / sizeof(T));
  for (int64_t d = 0; d < dim; d += kLine) __builtin_prefetch(row + d);
}

// The same for a row that is written.
template <class T>
[[gnu::always_inline]] inline void prefetch_write(T* row, int64_t dim) {
  constexpr auto kLine = static_cast<int64_t>(64 / sizeof(T));
  for (int64_t d = 0; d < dim; d += kLine) __builtin_prefetch(row + d, 1);
}

// REQUIRES: x at most 87. Within 2 units in the last place; 0 where that would be subnormal.
inline float exp_of(float x) {
  constexpr float kLog2E = 1.44269504F, kLn2High = 0.693145752F, kLn2Low = 1.42860677e-6F;
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: what is added to it becomes an integer
  const float bounded = x < -87.0F ? -87.0F : x;
  const float shifted = bounded * kLog2E + kRound;
  const float n = shifted - kRound;
  const float r = (bounded - n * kLn2High) - n * kLn2Low;
  float p = 1.0F / 5040;
  p = p * r + 1.0F / 720;
  p = p * r + 1.0F / 120;
  p = p * r + 1.0F / 24;
  p = p * r + 1.0F / 6;
  p = p * r + 0.5F;
  p = p * r + 1.0F;
  p = p * r + 1.0F;
  const uint32_t exponent = std::bit_cast<uint32_t>(shifted) << 23;
  const auto result = std::bit_cast<float>(std::bit_cast<uint32_t>(p) + exponent);
  return x < -87.0F ? 0.0F : result;
}
inline double exp_of(double x) { return std::exp(x); }

// In sixteen partial sums.
template <class T, class W>
inline W dot(const T* a, const W* b, int64_t n) {
  constexpr int64_t kLanes = 16;
  W sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += static_cast<W>(a[i + lane]) * b[i + lane];
  }
  for (; i < n; ++i) sums[i % kLanes] += static_cast<W>(a[i]) * b[i];
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  }
  return sums[0];
}

}  // namespace evenspan::run::chunked
