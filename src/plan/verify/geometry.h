// Overlap of strided areas of bytes, and an index of things that occupy them.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <map>
#include <utility>

#include "plan/verify/proof.h"

namespace evenspan::plan::proofs {

// A part of an area: rows [row_begin, row_end), in each the bytes [byte_begin, byte_end).
struct Patch {
  int64_t row_begin, row_end, byte_begin, byte_end;
};

struct Patches {
  std::array<Patch, 3> patch;
  int count = 0;

  // Clips to the area; drops what is empty.
  void add(const Area& area, Patch patch);
  const Patch* begin() const { return patch.data(); }
  const Patch* end() const { return patch.data() + count; }
};

// The part of `area` that `other` overlaps. Exact, but for two areas of several rows each, both with gaps and of
// different pitch: there `other` counts without its gaps, so that a proof may refuse too much and never too little.
Patches overlap(const Area& area, const Area& other);

// Things that occupy [begin(), end()), found by overlap. They may interleave, as heads of the same rows do, so they are
// kept by size class: of each class only neighbours can overlap a place.
template <class T>
class ExtentIndex {
 public:
  void insert(T thing) {
    auto& things = classes_[std::bit_width(static_cast<uint64_t>(thing.end() - thing.begin()))];
    const int64_t begin = thing.begin();
    things.emplace(begin, std::move(thing));
  }

  // Calls keep(thing) for each that overlaps [begin, end); those for which it returns false are erased.
  template <class F>
  void visit(int64_t begin, int64_t end, F&& keep) {
    for (auto& [width, things] : classes_) {
      auto at = things.lower_bound(begin - (int64_t{1} << width));
      while (at != things.end() && at->first < end) {
        at = at->second.end() <= begin || keep(at->second) ? std::next(at) : things.erase(at);
      }
    }
  }

  template <class F>
  void visit_all(F&& f) const {
    for (const auto& [width, things] : classes_) {
      for (const auto& [begin, thing] : things) f(thing);
    }
  }

 private:
  std::map<int, std::multimap<int64_t, T>> classes_;
};

}  // namespace evenspan::plan::proofs
