#include "files/utf8.h"

#include <algorithm>
#include <string>

namespace evenspan::files {

int64_t find_invalid_utf8(const char* text, int64_t num_bytes) {
  const auto* s = reinterpret_cast<const unsigned char*>(text);
  int64_t i = 0;
  while (i < num_bytes) {
    const unsigned char lead = s[i];
    if (lead < 0x80) {
      ++i;
      continue;
    }
    // The ranges of the second byte exclude overlong forms, surrogates and code points above 10FFFF.
    int64_t extra = 0;
    unsigned char low = 0x80;
    unsigned char high = 0xbf;
    if (lead >= 0xc2 && lead <= 0xdf) {
      extra = 1;
    } else if (lead >= 0xe0 && lead <= 0xef) {
      extra = 2;
      if (lead == 0xe0) low = 0xa0;
      if (lead == 0xed) high = 0x9f;
    } else if (lead >= 0xf0 && lead <= 0xf4) {
      extra = 3;
      if (lead == 0xf0) low = 0x90;
      if (lead == 0xf4) high = 0x8f;
    } else {
      return i;
    }
    if (i + extra >= num_bytes || s[i + 1] < low || s[i + 1] > high) return i;
    for (int64_t j = 2; j <= extra; ++j) {
      if (s[i + j] < 0x80 || s[i + j] > 0xbf) return i;
    }
    i += extra + 1;
  }
  return -1;
}

int64_t find_invalid_utf8(const InputFile& file) {
  constexpr int64_t kChunkBytes = int64_t{1} << 20;
  constexpr int64_t kMostCharacterBytes = 4;
  for (int64_t begin = 0; begin < file.num_bytes();) {
    const int64_t size = std::min(file.num_bytes() - begin, kChunkBytes);
    const std::string chunk = file.read(begin, size);
    const int64_t bad = find_invalid_utf8(chunk.data(), size);
    if (bad < 0) {
      begin += size;
    } else if (begin + size < file.num_bytes() && bad > size - kMostCharacterBytes) {
      begin += bad;  // it may be whole in the next chunk, which begins with it
    } else {
      return begin + bad;
    }
  }
  return -1;
}

}  // namespace evenspan::files
