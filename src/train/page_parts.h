// Pieces of the report page: inline SVG drawings, one function each. Colours and sizes live here and in the page's
// style.
#pragma once

#include <string>
#include <vector>

#include "evenspan/train/report.h"

namespace evenspan::train::page {

// One line of a chart, values at x = 1, 2, ...
struct Line {
  std::string label, colour;
  std::vector<double> values;
  bool dashed = false;
};
std::string line_chart(const std::vector<Line>& lines, const std::string& y_label);

// A row for each rank; documents that lie on several ranks in colours, whole ones in grey.
std::string placement_chart(const RunRecord::Step& step);

// Horizontal bars; `texts` stand behind them. `mark` draws a vertical line at that value (none if negative).
std::string bar_chart(const std::vector<std::string>& labels, const std::vector<double>& values,
                      const std::vector<std::string>& texts, double mark, const std::string& mark_label);

// Bytes in words, all in the unit of the largest. REQUIRES: not empty.
std::vector<std::string> byte_texts(const std::vector<double>& bytes);

// Bytes from row to column, darker is more, with a scale.
std::string matrix_chart(const std::vector<std::vector<int64_t>>& bytes);

// Text that is safe inside HTML.
std::string escaped(const std::string& text);

// printf into a string.
std::string format(const char* pattern, ...) __attribute__((format(printf, 1, 2)));

}  // namespace evenspan::train::page
