// Numbers as people read them.
#pragma once

#include <cstdint>
#include <string>

namespace evenspan {

// 12345678 as "12,345,678".
std::string grouped(int64_t number);

}  // namespace evenspan
