// Bytes for people to read.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace evenspan::train {

// "12.3 MB", "640 B".
std::string bytes_text(double num_bytes);

int64_t total(const std::vector<std::vector<int64_t>>& matrix);

}  // namespace evenspan::train
