#include "evenspan/batch/cost.h"

#include <bit>
#include <cmath>

#include "evenspan/core/error.h"

namespace evenspan::batch {
namespace {

size_t log2_up(int32_t value) { return static_cast<size_t>(std::bit_width(static_cast<uint32_t>(value - 1))); }

void check_seconds(const char* name, double seconds) {
  if (!(std::isfinite(seconds) && seconds >= 0)) {
    fail_invalid("[batch] ", name, " is ", seconds, "; times are finite and not negative");
  }
}

}  // namespace

double Cost::exchange(int32_t degree) const { return exchange_seconds[log2_up(degree)]; }

int32_t Cost::paid_degree(int32_t num_ranks_of_document, int32_t num_nodes_of_document) const {
  const int32_t own = static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>(num_ranks_of_document)));
  if (num_nodes_of_document == 1) return own;
  const int32_t nodes = static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>(num_nodes_of_document)));
  return std::max(own, static_cast<int32_t>(std::bit_ceil(
                           static_cast<uint32_t>(std::min(int64_t{nodes} * ranks_per_node, int64_t{num_ranks})))));
}

void validate(const Cost& cost) {
  if (cost.num_ranks < 1) fail_invalid("[batch] there are ", cost.num_ranks, " ranks; at least 1 is needed");
  if (cost.ranks_per_node < 1) {
    fail_invalid("[batch] a node has ", cost.ranks_per_node, " ranks; at least 1 is needed");
  }
  if (cost.capacity_tokens < 1) {
    fail_invalid("[batch] a rank has memory for ", cost.capacity_tokens,
                 " tokens beside the model's states; at least 1 is needed: raise the memory, or use more ranks");
  }
  check_seconds("the time of a pair", cost.square_seconds);
  for (const Cost::Window& window : cost.windows) {
    check_seconds("the time of a pair in a window", window.pair_seconds);
    if (window.keys < 1) fail_invalid("[batch] a window has ", window.keys, " keys; at least 1 is needed");
  }
  check_seconds("the time of a token", cost.token_seconds);
  if (cost.token_seconds == 0) fail_invalid("[batch] the time of a token is 0; it is above 0");
  check_seconds("the time of a micro-batch", cost.micro_batch_seconds);
  if (cost.exchange_seconds.size() != log2_up(cost.num_ranks) + 1) {
    fail_invalid("[batch] there are times of all-to-alls for ", cost.exchange_seconds.size(), " sizes of groups; ",
                 cost.num_ranks, " ranks need ", log2_up(cost.num_ranks) + 1, ": 1, 2, 4, ...");
  }
  double before = 0;
  for (const double seconds : cost.exchange_seconds) {
    check_seconds("the time of an all-to-all", seconds);
    if (seconds < before) {
      fail_invalid("[batch] a larger group's all-to-all takes ", seconds, " s a token and a smaller one's ", before,
                   " s; larger groups take no less");
    }
    before = seconds;
  }
  if (cost.exchange_seconds.front() != 0) {
    fail_invalid("[batch] an all-to-all on 1 rank takes ", cost.exchange_seconds.front(), " s a token; it takes none");
  }
}

}  // namespace evenspan::batch
