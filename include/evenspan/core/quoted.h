// Text of unknown origin in messages.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace evenspan {

// quoted(text): `text` in double quotes and on one line whatever is in it: bytes that are not printable ASCII, quotes
// and backslashes as \xNN, and after the first `most_bytes` bytes "...". An object and no function, so that a call with
// a std::string does not find std::quoted, which leaves line feeds as they are, where <iomanip> is included.
struct Quoted {
  std::string operator()(std::string_view text, size_t most_bytes = 40) const;
};
inline constexpr Quoted quoted;  // NOLINT(readability-identifier-naming): called like a function

}  // namespace evenspan
