// What every backend asks of the transfers that it is given.
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "evenspan/comm/communicator.h"
#include "evenspan/core/ids.h"

namespace evenspan::comm {

// Throws invalid_argument unless every peer is another rank of the communicator and every tensor is contiguous.
void check_transfers(Rank rank, int32_t size, const std::vector<Transfer>& sends, const std::vector<Transfer>& receives,
                     const std::string& operation);

// Throws invalid_argument unless the time-out is between a millisecond and a year.
void check_timeout(std::chrono::milliseconds timeout, const std::string& operation);

int64_t num_bytes(const at::Tensor& tensor);

// The bytes of a contiguous tensor as one dimension, outside autograd; shares its memory.
at::Tensor flat_bytes(const at::Tensor& tensor);

}  // namespace evenspan::comm
