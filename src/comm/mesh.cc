#include "evenspan/comm/mesh.h"

#include <string>

#include "evenspan/core/error.h"

namespace evenspan::comm {
namespace {

std::string divisors_of(int32_t number) {
  std::string text;
  for (int32_t divisor = 1; divisor <= number; ++divisor) {
    if (number % divisor == 0) text += join_text(text.empty() ? "" : ", ", divisor);
  }
  return text;
}

}  // namespace

Mesh::Mesh(int32_t num_ranks, int64_t num_replicas) {
  if (num_ranks < 1) fail_invalid("[mesh] there is at least 1 rank, but there are ", num_ranks, "; give some");
  if (num_replicas < 1 || num_ranks % num_replicas != 0) {
    fail_invalid("[mesh] replicas have the same number of ranks, at least one each, but ", num_replicas,
                 " do not divide ", num_ranks, " ranks; give as many replicas as one of ", divisors_of(num_ranks));
  }
  num_replicas_ = static_cast<int32_t>(num_replicas);
  sequence_ranks_ = num_ranks / num_replicas_;
}

std::vector<Rank> Mesh::sequence_group(Rank rank) const {
  std::vector<Rank> group;
  const int32_t first = replica_of(rank) * sequence_ranks_;
  for (int32_t i = 0; i < sequence_ranks_; ++i) group.emplace_back(first + i);
  return group;
}

}  // namespace evenspan::comm
