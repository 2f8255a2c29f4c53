#include "files/checksum.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

namespace evenspan::files {

uint64_t checksum(const InputFile& file) {
  constexpr int64_t kChunkBytes = int64_t{1} << 20;
  std::vector<char> chunk(static_cast<size_t>(std::min(file.num_bytes() + 7, kChunkBytes)));
  uint64_t sum = static_cast<uint64_t>(file.num_bytes());
  for (int64_t at = 0; at < file.num_bytes(); at += kChunkBytes) {
    const int64_t size = std::min(file.num_bytes() - at, kChunkBytes);
    file.read(at, size, chunk.data());
    std::fill(chunk.begin() + size, chunk.end(), '\0');
    for (int64_t i = 0; i < size; i += 8) {
      uint64_t word = 0;
      std::memcpy(&word, chunk.data() + i, 8);
      sum = std::rotl((sum ^ word) * 0x9e3779b97f4a7c15u, 29) + 0xd1b54a32d192ed03u;
    }
  }
  sum = (sum ^ (sum >> 32)) * 0xbf58476d1ce4e5b9u;
  return sum ^ (sum >> 29);
}

}  // namespace evenspan::files
