// Tables and numbers as people read them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace evenspan::cli {

// `number` with `digits` decimal places.
std::string fixed(double number, int digits);

// Rows of cells in columns as wide as their widest cell, all to the right.
std::string aligned(const std::vector<std::vector<std::string>>& rows);

// 12345678 as "12,345,678".
std::string grouped(int64_t number);

}  // namespace evenspan::cli
