#include "evenspan/core/quoted.h"

namespace evenspan {

std::string Quoted::operator()(std::string_view text, size_t most_bytes) const {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string shown = "\"";
  for (const char c : text.substr(0, most_bytes)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f && c != '"' && c != '\\') {
      shown += c;
    } else {
      shown += {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return shown + (text.size() > most_bytes ? "...\"" : "\"");
}

}  // namespace evenspan
