// Numbers of bytes as users write them.
#pragma once

#include <cstdint>
#include <string>

namespace evenspan {

// 1000, 64KiB, 8MiB, 2GiB. Throws invalid_argument for other texts, with a hint for near ones such as 80GB, and for
// what is beyond 63 bits; the text begins with `subject`, such as "[options] --memory-bytes".
int64_t parse_bytes(const std::string& subject, const std::string& text);

}  // namespace evenspan
