// What every backend must do with exchanges; each is the body of all ranks.
#pragma once

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include "ranks.h"

namespace evenspan::comm {

// Messages to one peer arrive in the order in which they were started, in whatever order the exchanges are waited for.
inline void messages_keep_their_order(const Communicator& communicator, c10::Device device = at::kCPU) {
  if (communicator.size() == 1) return;
  constexpr int kCount = 5;
  std::vector<at::Tensor> received;
  std::vector<std::unique_ptr<Work>> works;
  for (int i = 0; i < kCount; ++i) {
    received.push_back(filled(100, -1, device));
    works.push_back(communicator.exchange({{next(communicator), filled(100, 10 * communicator.rank() + i, device)}},
                                          {{previous(communicator), received[i]}}, "step"));
  }
  for (int i = kCount; i-- > 0;) works[i]->wait();
  for (int i = 0; i < kCount; ++i) {
    EXPECT_TRUE(received[i].equal(filled(100, 10 * previous(communicator) + i, device))) << "message " << i;
  }
}

// All ranks talk to all others in one exchange, with peers listed in an order of each rank's own, two messages each and
// an empty one between them.
inline void all_pairs_in_any_order(const Communicator& communicator, c10::Device device = at::kCPU) {
  const auto value = [](int from, int to, int i) { return 100 * from + 10 * to + i; };
  std::vector<Transfer> sends;
  std::vector<Transfer> receives;
  for (int step = 0; step < communicator.size(); ++step) {
    const Rank to((communicator.rank() * 3 + step) % communicator.size());
    const Rank from((communicator.rank() * 5 + communicator.size() - step) % communicator.size());
    for (int i = 0; i < 3; ++i) {
      const int64_t num_elements = i == 1 ? 0 : 50 + i;
      if (to != communicator.rank()) {
        sends.push_back({to, filled(num_elements, value(communicator.rank(), to, i), device)});
      }
      if (from != communicator.rank()) receives.push_back({from, filled(num_elements, -1, device)});
    }
  }
  const std::vector<Transfer> expected = receives;
  communicator.exchange(std::move(sends), std::move(receives), "all pairs")->wait();
  for (size_t j = 0; j < expected.size(); ++j) {
    const auto& [from, data] = expected[j];
    const int i = static_cast<int>(j % 3);
    EXPECT_TRUE(data.equal(filled(data.numel(), value(from, communicator.rank(), i), device)))
        << "rank " << communicator.rank() << " from " << from << " message " << i;
  }
}

// Rank 0 sends `b` only once `a` is consumed. Rank 1 has started the receive of `a`, but waits for `b`.
inline void a_started_receive_makes_progress(const Communicator& communicator) {
  if (communicator.rank() == 0) {
    communicator.exchange({{Rank(1), filled(3, 1)}}, {}, "a")->wait();
    communicator.exchange({{Rank(1), filled(3, 2)}}, {}, "b")->wait();
  } else if (communicator.rank() == 1) {
    const at::Tensor a = filled(3, 0);
    const at::Tensor b = filled(3, 0);
    const auto first = communicator.exchange({}, {{Rank(0), a}}, "a");
    communicator.exchange({}, {{Rank(0), b}}, "b")->wait();
    first->wait();
    EXPECT_TRUE(a.equal(filled(3, 1)));
    EXPECT_TRUE(b.equal(filled(3, 2)));
  }
}

// A work that nobody waits for is complete when it is gone; a second wait returns at once.
inline void works_complete_once(const Communicator& communicator) {
  if (communicator.size() == 1) return;
  const at::Tensor received = filled(10, -1);
  { communicator.exchange({{next(communicator), filled(10, 1)}}, {{previous(communicator), received}}, "dropped"); }
  EXPECT_TRUE(received.equal(filled(10, 1)));
  const auto work =
      communicator.exchange({{next(communicator), filled(10, 2)}}, {{previous(communicator), received}}, "");
  work->wait();
  work->wait();
  EXPECT_TRUE(received.equal(filled(10, 2)));
  communicator.exchange({}, {}, "empty")->wait();
}

}  // namespace evenspan::comm
