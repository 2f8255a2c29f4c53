// A hash that is the same on every machine, of the values that two sides want to compare.
#pragma once

#include <bit>
#include <cstdint>
#include <string_view>

namespace evenspan {

// Order counts: the hash is that of the sequence of values.
class Hasher {
 public:
  void add(uint64_t value) {
    // The finaliser of splitmix64 over a running state.
    state_ += value + 0x9e3779b97f4a7c15ULL;
    state_ = (state_ ^ (state_ >> 30)) * 0xbf58476d1ce4e5b9ULL;
    state_ = (state_ ^ (state_ >> 27)) * 0x94d049bb133111ebULL;
    state_ ^= state_ >> 31;
  }
  void add(int64_t value) { add(static_cast<uint64_t>(value)); }
  void add(int32_t value) { add(static_cast<uint64_t>(static_cast<uint32_t>(value))); }
  void add(double value) { add(std::bit_cast<uint64_t>(value)); }
  void add(std::string_view text) {
    for (const char c : text) add(static_cast<uint64_t>(static_cast<unsigned char>(c)));
    add(static_cast<uint64_t>(text.size()));
  }
  uint64_t state() const { return state_; }

 private:
  uint64_t state_ = 0;
};

}  // namespace evenspan
