#include "cli/table.h"

#include <algorithm>
#include <sstream>

namespace evenspan::cli {

std::string fixed(double number, int digits) {
  std::ostringstream out;
  out.precision(digits);
  out << std::fixed << number;
  return out.str();
}

std::string aligned(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()), 0);
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  }
  std::string text;
  for (const auto& row : rows) {
    for (size_t c = 0; c < row.size(); ++c) {
      text += c == 0 ? "" : "  ";
      text += std::string(widths[c] - row[c].size(), ' ') + row[c];
    }
    text += '\n';
  }
  return text;
}

}  // namespace evenspan::cli
