#include "train/amounts.h"

#include <cstdio>
#include <iterator>

namespace evenspan::train {

std::string bytes_text(double num_bytes) {
  const char* units[] = {"B", "kB", "MB", "GB", "TB"};
  size_t unit = 0;
  while (num_bytes >= 999.5 && unit + 1 < std::size(units)) {
    num_bytes /= 1000;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 || num_bytes >= 100 ? "%.0f %s" : "%.1f %s", num_bytes, units[unit]);
  return text;
}

int64_t total(const std::vector<std::vector<int64_t>>& matrix) {
  int64_t sum = 0;
  for (const auto& row : matrix) {
    for (const int64_t x : row) sum += x;
  }
  return sum;
}

}  // namespace evenspan::train
