#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "collective_cases.h"
#include "evenspan/core/error.h"
#include "exchange_cases.h"
#include "fake_group.h"
#include "ranks.h"

namespace evenspan::comm {
namespace {

using std::chrono::milliseconds;

void sleep(int64_t ms) { std::this_thread::sleep_for(milliseconds(ms)); }

void expect_text(const std::string& error, const std::string& part) {
  EXPECT_NE(error.find(part), std::string::npos) << "no \"" << part << "\" in: " << error;
}

void expect_no_errors(const std::vector<std::string>& errors) {
  for (const std::string& error : errors) EXPECT_EQ(error, "");
}

// A store that its host has taken along.
class MortalStore : public c10d::HashStore {
 public:
  c10::intrusive_ptr<Store> clone() override { return c10::intrusive_ptr<Store>::unsafe_reclaim_from_nonowning(this); }
  bool check(const std::vector<std::string>& keys) override {
    if (dead) throw std::runtime_error("Broken pipe\nframe #0");
    return c10d::HashStore::check(keys);
  }
  std::atomic<bool> dead = false;
};

using Case = std::tuple<int32_t, bool>;  // ranks, whether the backend coalesces
class C10d : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Groups, C10d, testing::Combine(testing::Values(1, 2, 3, 5), testing::Bool()));

TEST_P(C10d, ExchangesAndCollectivesAreThoseOfThreads) {
  const auto [num_ranks, coalesces] = GetParam();
  const FakeGroup group(num_ranks, {.coalesces = coalesces});
  expect_no_errors(group.errors_of([](const Communicator& c) {
    messages_keep_their_order(c);
    all_pairs_in_any_order(c);
    works_complete_once(c);
    if (c.size() == 2) a_started_receive_makes_progress(c);
    collectives_are_exact(c);
  }));
  EXPECT_EQ(group.net->num_groups > 0, coalesces && num_ranks > 1);
}

TEST(C10dGroup, OneExchangeIsOneGroup) {
  const FakeGroup group(4, {.coalesces = true});
  expect_no_errors(group.errors_of([](const Communicator& c) { all_gather(c, filled(3, c.rank())); }));
  EXPECT_EQ(group.net->num_groups, 4);
}

TEST(C10dGroup, IsFoundByName) {
  try {
    make_c10d_communicator("no such group");
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::invalid_argument);
    expect_text(e.what(), "none with the name \"no such group\"");
  }
}

TEST(C10dGroup, RefusesDevicesWithoutABackend) {
  const FakeGroup group(2);
  const auto errors = group.errors_of([](const Communicator& c) {
    try {
      c.exchange({{next(c), at::empty({3}, at::TensorOptions(at::kMeta))}}, {}, "step");
      ADD_FAILURE();
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::unsupported);
      throw;
    }
  });
  for (const std::string& error : errors) expect_text(error, "has none for meta; make the process group with");
}

TEST(C10dFailure, AnAbortReachesAllAndStays) {
  const FakeGroup group(3);
  const Stopwatch watch;
  const auto errors = group.errors_of([](const Communicator& c) {
    if (c.rank() == 2) {
      sleep(100);
      c.abort("attention backward", "out of memory");
    }
    const std::string first = error_of([&] { barrier(c, "exchange 3"); });
    EXPECT_EQ(error_of([&] { barrier(c, "exchange 4"); }),
              join_text("[exchange 4] rank 2 failed in \"attention backward\": out of memory", kEnded));
    throw std::runtime_error(first);
  });
  EXPECT_LT(watch.seconds(), 4);
  for (size_t rank = 0; rank < errors.size(); ++rank) {
    EXPECT_EQ(errors[rank], join_text("[exchange 3] rank 2 failed in \"attention backward\": out of memory",
                                      rank == 2 ? kEnded : ""));
  }
}

TEST(C10dFailure, ADeadPeerIsNamedByAll) {
  for (const bool coalesces : {false, true}) {
    const FakeGroup group(4, {.coalesces = coalesces});
    const auto errors = group.errors_of([&](const Communicator& c) {  // 0 waits for 1, 3 for 2, 2 for 0
      if (c.rank() == 1) {
        sleep(50);
        return group.net->kill(1);
      }
      const Rank source(c.rank() == 0 ? 1 : c.rank() == 2 ? 0 : 2);
      c.exchange({}, {{source, filled(4, 0)}}, "chain")->wait();
    });
    for (int rank : {0, 2, 3}) {
      EXPECT_EQ(errors[rank],
                "[chain] rank 0 failed in \"chain\": the transfer with rank 1 broke (Connection closed by peer); the "
                "process there has probably died, see its log");
    }
  }
}

// Gloo leaves a transfer alone whose connection breaks in its middle; see Canaries in c10d.cc.
TEST(C10dFailure, ADeadPeerIsNoticedInTheMiddleOfATransfer) {
  const FakeGroup group(3, {.name = "gloo"});
  group.net->mute = true;
  const Stopwatch watch;
  const auto errors = group.errors_of([&](const Communicator& c) {
    if (c.rank() == 1) {
      sleep(50);
      return group.net->kill(1);
    }
    c.exchange({}, {{Rank(c.rank() == 0 ? 1 : 0), filled(4, 0)}}, "chain")->wait();
  });
  EXPECT_LT(watch.seconds(), 4);
  for (int rank : {0, 2}) expect_text(errors[rank], "rank 0 failed in \"chain\": the transfer with rank 1 broke");
}

TEST(C10dFailure, AStallIsNamedWithWhoWaitsForWhom) {
  const FakeGroup group(3);
  const Stopwatch watch;
  const auto errors = group.errors_of(
      [](const Communicator& c) {
        if (c.rank() == 2) {
          sleep(600);
          barrier(c, "too late");
        }
        c.exchange({}, {{next(c), filled(1, 0)}}, c.rank() == 0 ? "outer" : "inner")->wait();
      },
      {milliseconds(300)});
  EXPECT_LT(watch.seconds(), 4);
  for (const std::string& error : errors) {
    expect_text(error, " did not come within 300 ms; ");
    expect_text(error, "; rank 2 waits for nobody");
  }
}

// The second pair of sizes would match if the order did not count.
TEST(C10dFailure, DifferentSizesNameBothEndsLongBeforeTheTimeOut) {
  for (const auto& received : {std::vector<int64_t>{5, 6}, std::vector<int64_t>{5, 4}}) {
    const FakeGroup group(2);
    const Stopwatch watch;
    const auto errors = group.errors_of([&](const Communicator& c) {
      if (c.rank() == 0) c.exchange({{Rank(1), filled(4, 1)}, {Rank(1), filled(5, 1)}}, {}, "push")->wait();
      if (c.rank() == 0) return;
      c.exchange({}, {{Rank(0), filled(received[0], 1)}, {Rank(0), filled(received[1], 1)}}, "pull")->wait();
    });
    EXPECT_LT(watch.seconds(), 4);
    for (const std::string& error : errors) {
      expect_text(error, "rank 0 sends 16 bytes in \"push\"");
      expect_text(error, "rank 1 receives 20 bytes in \"pull\"");
    }
  }
}

TEST(C10dFailure, TheBackendsOwnTimeOutDoesNotComeFirst) {
  const FakeGroup group(2);
  const auto errors = group.errors_of(
      [](const Communicator& c) {
        if (c.rank() == 0) c.exchange({}, {{Rank(1), filled(1, 0)}}, "step")->wait();
      },
      {milliseconds(100)});
  expect_text(errors[0], "rank 1 did not come within 100 ms");
}

// On a device `wait` returns at once. What follows is the watcher's: a stall there is an error of the next call.
TEST(C10dStreams, AStallBehindTheWaitFailsTheNextCall) {
  const FakeGroup group(3, {.coalesces = true, .has_streams = true});
  const auto errors = group.errors_of(
      [](const Communicator& c) {
        if (c.rank() != 2) c.exchange({}, {{next(c), filled(1, 0)}}, "on the device")->wait();
        for (int i = 0; i < 2; ++i) {  // rank 2 has to start something before it hears of the others
          sleep(400);
          barrier(c, "later");
        }
      },
      {milliseconds(300)});
  for (const std::string& error : errors) {
    expect_text(error, "[later] rank ");
    expect_text(error, " failed in \"on the device\": ");
    expect_text(error, "rank 2 waits for nobody");
  }
}

TEST(C10dStreams, TransfersThatArriveAreForgotten) {
  const FakeGroup group(2, {.coalesces = true, .has_streams = true});
  expect_no_errors(group.errors_of(
      [](const Communicator& c) {
        for (int i = 0; i < 8; ++i) {  // together longer than the time-out, each much shorter
          sleep(100);
          c.exchange({{next(c), filled(1, 0)}}, {{next(c), filled(1, 0)}}, "step")->wait();
        }
      },
      {milliseconds(600)}));
}

TEST(C10dStore, WithoutOneTheTextSaysSo) {
  const FakeGroup group(3, {.store = nullptr});
  const auto errors = group.errors_of(
      [](const Communicator& c) {
        if (c.rank() != 2) c.exchange({}, {{next(c), filled(1, 0)}}, "step")->wait();
      },
      {milliseconds(100)});
  expect_text(errors[0], "rank 1 did not come within 100 ms");
  expect_text(errors[1], "rank 2 did not come within 100 ms");
  for (int rank : {0, 1}) expect_text(errors[rank], "the group has no store");
}

TEST(C10dStore, WhenItDiesTheTextSaysWhoHadIt) {
  const auto store = c10::make_intrusive<MortalStore>();
  const FakeGroup group(3, {.store = store});
  const auto errors = group.errors_of(
      [&](const Communicator& c) {
        if (c.rank() == 0) {
          sleep(50);
          store->dead = true;
          return group.net->kill(0);
        }
        c.exchange({}, {{Rank(c.rank() - 1), filled(1, 0)}}, "step")->wait();
      },
      {milliseconds(600)});
  expect_text(errors[1], "the transfer with rank 0 broke");
  expect_text(errors[2], "rank 1 did not come within 600 ms");
  for (int rank : {1, 2})
    expect_text(errors[rank],
                "the group's store is gone, so its host, usually rank 0, probably died first (Broken pipe)");
}

}  // namespace
}  // namespace evenspan::comm
