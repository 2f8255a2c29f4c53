// Programs reduced to what takes time: what the simulator runs. A schedule is small where a program is not, so that
// ranks can be lowered one by one.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "evenspan/plan/program.h"
#include "evenspan/simulate/profile.h"

namespace evenspan::simulate {

// An operation: it computes for `seconds`, and an exchange starts when it begins.
struct TimedOperation {
  std::string_view name;       // of the operation (plan::OperationTraits)
  double seconds = 0;          // of the compute engine
  int32_t exchange = -1;       // index in Schedule::exchanges; -1: the operation is no exchange
  std::vector<int32_t> waits;  // indices of earlier exchanges that must be complete before
  int64_t live_bytes = 0;      // of the arena while the step runs, when counted
};

// One message of an exchange.
struct MessageBytes {
  Rank peer;
  int64_t bytes = 0;  // >= 1
};

struct ExchangeTraffic {
  std::vector<MessageBytes> sends;  // in the order of the program
  std::vector<MessageBytes> receives;
};

struct Schedule {
  std::vector<TimedOperation> steps;
  std::vector<ExchangeTraffic> exchanges;  // in the order in which steps start them
};

enum class LiveBytes : uint8_t { skip, count };

// Floating-point operations of a part's rows in chunks of 64 tokens (docs/algorithms.md). Backward: of its gradients.
struct LinearFlops {
  double summarize = 0;  // the state's update; of dense transitions also the part's matrix
  double intra = 0;      // of rows that wait for an Apply; the others cost both
  double apply = 0;
};
LinearFlops linear_flops(const plan::AttentionShape& shape, int64_t rows, Pass pass);

// The schedule of a program. With LiveBytes::count, every step also says how many bytes of the arena hold something
// that is still read (blocks that are not dense count from their first byte to their last).
// REQUIRES: `times` are for `shape`.
Schedule price(const plan::Phase& program, const plan::AttentionShape& shape, const Profile& profile,
               const AttentionTimes& times, LiveBytes live_bytes = LiveBytes::skip);

// Of a linear layer's program: its operations cost their matrix products (linear_flops) at the rate of the token-wise
// layers.
Schedule price_linear(const plan::Phase& program, const plan::AttentionShape& shape, const Profile& profile,
                      LiveBytes live_bytes = LiveBytes::skip);

}  // namespace evenspan::simulate
