// Where a stream of batches stands.
#pragma once

#include <cstdint>

namespace evenspan::train {

// What a checkpoint keeps of the data.
struct Cursor {
  int64_t epoch = 0;
  int64_t next = 0;  // into the epoch's order
  friend bool operator==(const Cursor&, const Cursor&) = default;
};

}  // namespace evenspan::train
