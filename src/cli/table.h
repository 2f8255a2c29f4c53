// Tables as people read them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace evenspan::cli {

// `number` with `digits` decimal places.
std::string fixed(double number, int digits);

// "1 document", "1,200 documents".
std::string counted(int64_t number, const std::string& what);

// Words in lines of at most `width` characters, but for longer words; without a line feed at the end.
std::string wrapped(const std::string& text, size_t width);

// Rows of cells in columns as wide as their widest cell, all to the right.
std::string aligned(const std::vector<std::vector<std::string>>& rows);

}  // namespace evenspan::cli
