// Batches of real document lengths, for benchmarks and the tests of what they promise.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace evenspan::bench {

// All lengths of a file in bench/data/.
inline std::vector<int64_t> read_lengths(const std::string& file) {
  std::ifstream in(std::filesystem::path(EVENSPAN_SOURCE_DIR) / "bench/data" / file);
  std::vector<int64_t> lengths;
  for (int64_t length = 0; in >> length;) lengths.push_back(length);
  if (lengths.empty()) throw std::runtime_error("bench/data/" + file + " is missing");
  return lengths;
}

// The first documents of a file in bench/data/, the last one cut, so that they have `num_tokens` tokens.
inline std::vector<int64_t> first_lengths(const std::string& file, int64_t num_tokens) {
  std::vector<int64_t> batch;
  for (const int64_t length : read_lengths(file)) {
    if (num_tokens == 0) return batch;
    batch.push_back(std::min(length, num_tokens));
    num_tokens -= batch.back();
  }
  if (num_tokens > 0) throw std::runtime_error("bench/data/" + file + " is too short");
  return batch;
}

// Documents drawn with a seed, cut at a quarter of the batch.
inline std::vector<int64_t> draw_lengths(const std::vector<int64_t>& lengths, int64_t num_tokens, uint64_t seed) {
  uint64_t state = seed * 0x9e3779b97f4a7c15ULL + 1;  // xorshift64
  std::vector<int64_t> batch;
  for (int64_t left = num_tokens; left > 0; left -= batch.back()) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    batch.push_back(std::min({lengths[state % lengths.size()], num_tokens / 4, left}));
  }
  return batch;
}

}  // namespace evenspan::bench
