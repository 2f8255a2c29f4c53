// Whether a file is the one that was written.
#pragma once

#include <cstdint>

#include "files/input_file.h"

namespace evenspan::files {

// 64 bits of all bytes and their number. Two files that differ inside one aligned word of 8 bytes have different
// checksums, since every word is taken in by a permutation; others agree with a chance of about 2^-64. Against
// accidents, not against forgery.
uint64_t checksum(const InputFile& file);

}  // namespace evenspan::files
