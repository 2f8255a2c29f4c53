// Whether bytes are UTF-8.
#pragma once

#include <cstdint>

#include "files/input_file.h"

namespace evenspan::files {

// The offset of the first byte that is not UTF-8 (overlong forms and surrogates are not), or -1 if all of it is.
int64_t find_invalid_utf8(const char* text, int64_t num_bytes);
// Of a whole file, a chunk at a time.
int64_t find_invalid_utf8(const InputFile& file);

}  // namespace evenspan::files
