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
template <class W>
inline W dot(const W* a, const W* b, int64_t n) {
  constexpr int64_t kLanes = 16;
  W sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += a[i + lane] * b[i + lane];
  }
  for (; i < n; ++i) sums[i % kLanes] += a[i] * b[i];
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  }
  return sums[0];
}

}  // namespace evenspan::run::chunked
