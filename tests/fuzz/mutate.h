// Damage to inputs, the same for the same seed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace evenspan::fuzz {

class Random {  // splitmix64
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t x = state_ += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  }
  size_t below(size_t end) { return static_cast<size_t>(next() % end); }  // REQUIRES: end > 0

 private:
  uint64_t state_;
};

constexpr size_t kMostInputBytes = size_t{1} << 16;

// An input of the corpus with one to four damages: bits flipped, pieces left out, doubled, moved or taken from another
// input, words of the kind put in, numbers of the text replaced by extreme ones, binary words likewise.
std::string mutated(const std::vector<std::string>& corpus, const std::vector<std::string_view>& words, Random* random);

}  // namespace evenspan::fuzz
