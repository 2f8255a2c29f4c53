// Tables as people read them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace evenspan::cli {

// `number` with `digits` decimal places.
std::string fixed(double number, int digits);

// Rows of cells in columns as wide as their widest cell, all to the right.
std::string aligned(const std::vector<std::vector<std::string>>& rows);

}  // namespace evenspan::cli
