// The cases of a sweep that run.
#pragma once

#include <cstdint>

namespace evenspan::test {

// All of them; under a sanitizer a third, spread over the sweep. There each takes ten times as long, and what is looked
// for are reads, writes and races: they do not hang on a combination of sizes as values do, which the release build
// compares for all.
class Sweep {
 public:
  bool takes_next() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    uint64_t x = ++num_cases_ * 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    return (x ^ (x >> 31)) % 3 == 0;
#else
    return true;
#endif
  }

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
 private:
  uint64_t num_cases_ = 0;
#endif
};

}  // namespace evenspan::test
