#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "evenspan/core/error.h"
#include "exchange_cases.h"
#include "ranks.h"

namespace evenspan::comm {
namespace {

using std::chrono::milliseconds;

class Threads : public testing::TestWithParam<int32_t> {};
INSTANTIATE_TEST_SUITE_P(Ranks, Threads, testing::Values(1, 2, 3, 5, 8));

TEST_P(Threads, MessagesKeepTheirOrder) {
  for (const c10::Device device : test_devices()) {
    run_threads(GetParam(), [&](const Communicator& c) { messages_keep_their_order(c, device); });
  }
}

TEST_P(Threads, AllPairsInAnyOrder) {
  for (const c10::Device device : test_devices()) {
    run_threads(GetParam(), [&](const Communicator& c) {
      for (int i = 0; i < 10; ++i) all_pairs_in_any_order(c, device);
    });
  }
}

TEST_P(Threads, WorksCompleteOnce) { run_threads(GetParam(), works_complete_once); }

TEST(ThreadsExchange, AStartedReceiveMakesProgress) {
  run_threads(2, a_started_receive_makes_progress, {milliseconds(5000)});
}

TEST(ThreadsExchange, TakesAnyTypeByItsBytes) {
  run_threads(2, [](const Communicator& c) {
    const at::Tensor received = at::empty({4}, at::kComplexFloat);
    const at::Tensor scalar = at::empty({}, at::kBFloat16);
    c.exchange({{next(c), filled(8, 1.5)}, {next(c), filled(1, 2).squeeze().to(at::kBFloat16)}},
               {{previous(c), received}, {previous(c), scalar}}, "bytes")
        ->wait();
    EXPECT_TRUE(received.view(at::kFloat).equal(filled(8, 1.5)));
    EXPECT_EQ(scalar.item<float>(), 2);
  });
}

// Sender and receiver touch their tensors right before and after the exchange: the thread sanitizer sees a missing
// order.
TEST(ThreadsExchange, OrdersMemoryOfBothEnds) {
  run_threads(3, [](const Communicator& c) {
    std::vector<float> mine(1000, 0);
    std::vector<float> theirs(1000, 0);
    const at::Tensor sent = at::from_blob(mine.data(), {1000});
    const at::Tensor received = at::from_blob(theirs.data(), {1000});
    for (int i = 0; i < 50; ++i) {
      for (float& x : mine) x = static_cast<float>(i);
      c.exchange({{next(c), sent}}, {{previous(c), received}}, "step")->wait();
      for (float& x : theirs) ASSERT_EQ(std::exchange(x, -1.0f), static_cast<float>(i));
    }
  });
}

TEST(ThreadsExchange, RefusesWrongTransfersBeforeAnythingStarts) {
  run_threads(2, [](const Communicator& c) {
    const auto refuses = [&](std::vector<Transfer> sends, const char* text) {
      try {
        c.exchange({sends}, {}, "step 7");
        ADD_FAILURE() << "accepted " << text;
      } catch (const Error& e) {
        EXPECT_EQ(e.kind(), ErrorKind::invalid_argument);
        EXPECT_NE(std::string(e.what()).find("[step 7] "), std::string::npos) << e.what();
        EXPECT_NE(std::string(e.what()).find(text), std::string::npos) << e.what();
      }
    };
    const at::Tensor good = filled(4, 1);
    refuses({{next(c), good}, {c.rank(), good}}, "sends to itself");
    refuses({{next(c), good}, {Rank(2), good}}, "rank 2");
    refuses({{next(c), good}, {Rank(-1), good}}, "rank -1");
    refuses({{next(c), good}, {next(c), filled(4, 1).view({2, 2}).t()}}, "strided");
    refuses({{next(c), good}, {next(c), at::Tensor()}}, "undefined");
    works_complete_once(c);  // nothing was sent, nothing is out of step
  });
}

TEST(ThreadsFailure, DifferentSizesNameBothEnds) {
  const auto errors = errors_of(3, [](const Communicator& c) {
    if (c.rank() == 0) c.exchange({{Rank(2), filled(4, 1)}}, {}, "push")->wait();
    if (c.rank() == 1) c.exchange({}, {{Rank(0), filled(1, 1)}}, "other")->wait();
    if (c.rank() == 2) c.exchange({}, {{Rank(0), filled(5, 1)}}, "pull")->wait();
  });
  for (const std::string& error : errors) {
    EXPECT_NE(error.find("rank 0 sends 16 bytes in \"push\" and rank 2 receives 20 bytes in \"pull\""),
              std::string::npos)
        << error;
  }
}

TEST(ThreadsFailure, AnAbortReachesAllAndStays) {
  std::atomic<int> num_failed{0};
  const auto errors = errors_of(4, [&](const Communicator& c) {
    if (c.rank() == 2) {
      std::this_thread::sleep_for(milliseconds(20));
      c.abort("attention backward", "out of memory");
      c.abort("clean-up", "a second reason that nobody needs");
      const Stopwatch watch;  // its end would wake the others too
      while (num_failed < 3 && watch.seconds() < 5) std::this_thread::yield();
      EXPECT_EQ(num_failed, 3);
    }
    const std::string first = error_of([&] { barrier(c, "exchange 3"); });
    EXPECT_EQ(error_of([&] { barrier(c, "exchange 4"); }),
              join_text("[exchange 4] rank 2 failed in \"attention backward\": out of memory", kEnded));
    ++num_failed;
    throw std::runtime_error(first);
  });
  for (size_t rank = 0; rank < errors.size(); ++rank) {
    EXPECT_EQ(errors[rank], join_text("[exchange 3] rank 2 failed in \"attention backward\": out of memory",
                                      rank == 2 ? kEnded : ""));
  }
}

// The sender's memory goes back to the system as soon as its wait has thrown.
TEST(ThreadsFailure, AFailureWaitsForCopiesUnderWay) {
  std::atomic<bool> receives = false;
  errors_of(3, [&](const Communicator& c) {
    if (c.rank() == 2) {
      while (!receives) std::this_thread::yield();
      std::this_thread::sleep_for(milliseconds(2));
      c.abort("step", "enough");
      return;
    }
    std::vector<float> memory(size_t{16} << 20);
    const at::Tensor data = at::from_blob(memory.data(), {static_cast<int64_t>(memory.size())});
    if (c.rank() == 1) receives = true;
    if (c.rank() == 0) c.exchange({{Rank(1), data}}, {}, "big")->wait();
    if (c.rank() == 1) c.exchange({}, {{Rank(0), data}}, "big")->wait();
  });
}

TEST(ThreadsFailure, ATimeOutNamesWhoDidNotCome) {
  const Stopwatch watch;
  const auto errors = errors_of(3,
                                [](const Communicator& c) {  // 0 waits for 1, which waits for 2, which is busy
                                  if (c.rank() == 2) {
                                    std::this_thread::sleep_for(milliseconds(400));
                                    barrier(c, "too late");
                                  }
                                  c.exchange({}, {{next(c), filled(1, 0)}}, c.rank() == 0 ? "outer" : "inner")->wait();
                                },
                                {milliseconds(150)});
  EXPECT_LT(watch.seconds(), 5);
  for (const std::string& error : errors) {
    EXPECT_NE(error.find(" did not come within 150 ms; "), std::string::npos) << error;
    EXPECT_NE(error.find("; rank 2 waits for nobody"), std::string::npos) << error;
  }
  EXPECT_EQ(errors[0].rfind("[outer] ", 0), 0u) << errors[0];
  EXPECT_EQ(errors[1].rfind("[inner] ", 0), 0u) << errors[1];
}

TEST(ThreadsFailure, RanksThatWaitForEachOtherAreTold) {
  const auto errors = errors_of(2,
                                [](const Communicator& c) {
                                  c.exchange({}, {{next(c), filled(1, 0)}}, "both receive")->wait();
                                },
                                {milliseconds(50)});
  for (const std::string& error : errors) EXPECT_NE(error.find("they wait for each other"), std::string::npos) << error;
}

TEST(ThreadsFailure, ARankThatReturnsEarlyIsNamedAtOnce) {
  for (const bool peer_sends : {false, true}) {
    const Stopwatch watch;
    const auto errors = errors_of(3,
                                  [&](const Communicator& c) {
                                    if (c.rank() == 1) return;
                                    std::vector<Transfer> transfers{{Rank(1), filled(1, 0)}};
                                    if (c.rank() == 2) transfers = {{Rank(0), filled(1, 0)}};
                                    if (peer_sends) {
                                      c.exchange(transfers, {}, "layer 5")->wait();
                                    } else {
                                      c.exchange({}, transfers, "layer 5")->wait();
                                    }
                                  },
                                  {milliseconds(60'000)});
    EXPECT_LT(watch.seconds(), 5);
    EXPECT_EQ(errors[1], "");
    for (int rank : {0, 2}) {
      EXPECT_NE(errors[rank].find("rank 0 failed in \"layer 5\": rank 1 has ended"), std::string::npos) << errors[rank];
    }
  }
}

TEST(ThreadsFailure, TheDestroyedCommunicatorOfARankCountsAsItsEnd) {
  auto communicators = make_threads_communicators(2);
  communicators[1] = Communicator();
  const std::string error = error_of([&] { barrier(communicators[0]); });
  EXPECT_NE(error.find("rank 1 has ended"), std::string::npos) << error;
}

TEST(RunThreads, RethrowsWhatCameFirst) {
  struct Boom {};
  EXPECT_THROW(run_threads(4,
                           [](const Communicator& c) {
                             if (c.rank() == 2) throw Boom();
                             barrier(c);
                           }),
               Boom);
  const std::string error = error_of([] {
    run_threads(3, [](const Communicator& c) {
      if (c.rank() == 1) throw std::runtime_error("no such file");
      const std::string mine = error_of([&] { barrier(c); });
      EXPECT_EQ(mine, "[barrier] rank 1 failed in \"the body of run_threads\": no such file");
      throw std::runtime_error(mine);
    });
  });
  EXPECT_EQ(error, "no such file");
}

TEST(RunThreads, NeedsARank) {
  for (int32_t num_ranks : {0, -3}) {
    const std::string error = error_of([&] { run_threads(num_ranks, [](const Communicator&) {}); });
    EXPECT_NE(error.find("[run_threads] there is at least 1 rank"), std::string::npos) << error;
    EXPECT_NE(error_of([&] { make_threads_communicators(num_ranks); }), "");
  }
}

TEST(RunThreads, NeedsATimeOut) {
  for (const milliseconds timeout : {milliseconds(0), milliseconds(-1), milliseconds::max()}) {
    const std::string error = error_of([&] { run_threads(1, [](const Communicator&) {}, {timeout}); });
    EXPECT_NE(error.find("[run_threads] time-outs are between 1 ms and a year"), std::string::npos) << error;
  }
}

}  // namespace
}  // namespace evenspan::comm
