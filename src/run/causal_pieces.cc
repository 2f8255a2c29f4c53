#include "run/causal_pieces.h"

namespace evenspan::run {

std::vector<CausalPieces> causal_pieces(int64_t rows, int64_t leaf) {
  std::vector<CausalPieces> result;
  const int64_t squares = rows / leaf, end = squares * leaf;
  if (squares > 0) result.push_back({squares, leaf, {0, leaf}, {0, leaf}});
  if (end < rows) result.push_back({1, 0, {end, rows}, {end, rows}});
  for (int64_t half = leaf; half < rows; half *= 2) {
    const int64_t whole = rows / (2 * half), last = whole * 2 * half;
    if (whole > 0) result.push_back({whole, 2 * half, {half, 2 * half}, {0, half}});
    if (rows - last > half) result.push_back({1, 0, {last + half, rows}, {last, last + half}});
  }
  return result;
}

}  // namespace evenspan::run
