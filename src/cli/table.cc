#include "cli/table.h"

#include <algorithm>
#include <sstream>

#include "evenspan/core/grouped.h"

namespace evenspan::cli {

std::string fixed(double number, int digits) {
  std::ostringstream out;
  out.precision(digits);
  out << std::fixed << number;
  return out.str();
}

std::string counted(int64_t number, const std::string& what) {
  return grouped(number) + " " + what + (number == 1 ? "" : "s");
}

std::string wrapped(const std::string& text, size_t width) {
  std::string lines;
  size_t used = 0;
  std::istringstream words(text);
  for (std::string word; words >> word; used += word.size()) {
    const bool fits = used + 1 + word.size() <= width;
    if (used > 0) lines += fits ? ' ' : '\n';
    used = used > 0 && fits ? used + 1 : 0;
    lines += word;
  }
  return lines;
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
