// Text of unknown origin in messages.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace evenspan {

// `text` in double quotes and on one line whatever is in it: bytes that are not printable ASCII, quotes and backslashes
// as \xNN, and after the first `most_bytes` bytes "...".
std::string quoted(std::string_view text, size_t most_bytes = 40);

}  // namespace evenspan
