#include "plan/verify/geometry.h"

#include <algorithm>

namespace evenspan::plan::proofs {
namespace {

int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0 ? 1 : 0); }

// `other` as one dense range.
void overlap_dense(const Area& area, const Area& other, Patches* patches) {
  const int64_t begin = other.begin - area.begin;
  const int64_t end = other.end() - area.begin;
  // The first row that ends after `begin`, and the first that starts at or after `end`.
  const int64_t first = std::max<int64_t>(0, floor_div(begin - area.row_bytes, area.pitch) + 1);
  const int64_t last = std::min(area.num_rows, floor_div(end - 1, area.pitch) + 1);
  if (first >= last) return;
  const auto in_row = [&](int64_t row, int64_t byte) { return byte - row * area.pitch; };
  const int64_t head = std::max<int64_t>(0, in_row(first, begin));
  const int64_t tail = std::min(area.row_bytes, in_row(last - 1, end));
  if (last - first == 1) return patches->add(area, Patch{first, last, head, tail});
  patches->add(area, Patch{first, first + 1, head, area.row_bytes});
  patches->add(area, Patch{first + 1, last - 1, 0, area.row_bytes});
  patches->add(area, Patch{last - 1, last, 0, tail});
}

}  // namespace

void Patches::add(const Area& area, Patch p) {
  p = Patch{std::max<int64_t>(p.row_begin, 0), std::min(p.row_end, area.num_rows), std::max<int64_t>(p.byte_begin, 0),
            std::min(p.byte_end, area.row_bytes)};
  if (p.row_begin < p.row_end && p.byte_begin < p.byte_end) patch[static_cast<size_t>(count++)] = p;
}

Patches overlap(const Area& area, const Area& other) {
  Patches patches;
  if (other.end() <= area.begin || area.end() <= other.begin) return patches;
  const bool same_rows = area.num_rows == 1 ? area.row_bytes <= other.pitch : area.pitch == other.pitch;
  if (other.dense() || !same_rows) {
    overlap_dense(area, other, &patches);
    return patches;
  }
  const int64_t distance = other.begin - area.begin;
  const int64_t rows = floor_div(distance, other.pitch);
  const int64_t bytes = distance - rows * other.pitch;
  patches.add(area, Patch{rows, rows + other.num_rows, bytes, bytes + other.row_bytes});
  // Where rows of `other` reach into the next row of `area`.
  patches.add(area,
              Patch{rows + 1, rows + 1 + other.num_rows, bytes - other.pitch, bytes + other.row_bytes - other.pitch});
  return patches;
}

}  // namespace evenspan::plan::proofs
