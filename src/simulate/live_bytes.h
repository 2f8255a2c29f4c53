// How full the arena is while a program runs.
#pragma once

#include <cstdint>
#include <vector>

#include "evenspan/plan/program.h"

namespace evenspan::simulate {

// For each operation, the bytes of the arena that it reads or writes or that a later one reads before they are written
// again. What an exchange sends is read until an operation waits for the exchange.
std::vector<int64_t> count_live_bytes(const plan::Phase& program, const plan::AttentionShape& shape);

}  // namespace evenspan::simulate
