#include "comm/watcher.h"

#include <gtest/gtest.h>

#include <atomic>

#include "ranks.h"

namespace evenspan::comm {
namespace {

using std::chrono::milliseconds;

// A wait for rank 1 that nothing ends.
std::shared_ptr<Watched> endless_wait(std::atomic<bool>& aborted) {
  auto watched = std::make_shared<Watched>();
  watched->operation = "step";
  const auto calls = std::make_shared<Calls>();
  watched->call = calls->current();
  watched->calls = calls;
  const TransferEnd message{TransferEnd::Direction::receive, Rank(1), 0, 4};
  watched->pendings.push_back({{}, {message}, kNoTimeout, [&] { aborted = true; }});
  return watched;
}

// A peer may end in good order right after the message that is waited for: one look at its connection proves nothing.
TEST(Watcher, BelievesInABrokenConnectionAtTheSecondLook) {
  for (const bool persists : {false, true}) {
    Board board(nullptr);
    std::atomic<bool> aborted = false;
    std::atomic<int> num_looks = 0;
    Watcher watcher(Rank(0), milliseconds(5000), board, [&](Rank peer) {
      EXPECT_EQ(peer, 1);
      const bool broken = num_looks++ % 2 == 0 || persists;
      return std::string(broken ? "[pair.cc:1] Connection closed by peer. And more" : "");
    });
    EXPECT_FALSE(watcher.begin(endless_wait(aborted)));
    const Stopwatch watch;
    while (num_looks < 4 && !aborted && watch.seconds() < 10) std::this_thread::sleep_for(milliseconds(10));
    EXPECT_EQ(aborted, persists);
    EXPECT_EQ(num_looks, persists ? 2 : 4);
    ASSERT_EQ(watcher.failure().has_value(), persists);
    if (persists) {
      EXPECT_EQ(watcher.failure()->reason,
                "the transfer with rank 1 broke (Connection closed by peer); the process there has probably died, see "
                "its log; the group has no store, so ranks that wait for others than the one to blame only see a "
                "time-out");
    }
  }
}

TEST(Watcher, KeepsTheFirstFailureAndRefusesLaterWaits) {
  Board board(nullptr);
  std::atomic<bool> aborted = false;
  Watcher watcher(Rank(0), milliseconds(5000), board, [](Rank) { return std::string(); });
  EXPECT_FALSE(watcher.begin(endless_wait(aborted)));
  EXPECT_EQ(watcher.settle({Rank(0), "first", "a"}).operation, "first");
  EXPECT_EQ(watcher.settle({Rank(0), "second", "b"}).operation, "first");
  EXPECT_TRUE(aborted);
  const auto failure = watcher.begin(endless_wait(aborted));
  ASSERT_TRUE(failure);
  EXPECT_EQ(failure->operation, "first");
}

TEST(Failure, SurvivesTheStore) {
  const Failure failure{Rank(12), "layer 3: \"backward\"", "several\nlines, 7: numbers "};
  const auto read = read_failure(write_failure(failure));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->rank, failure.rank);
  EXPECT_EQ(read->operation, failure.operation);
  EXPECT_EQ(read->reason, failure.reason);

  const Waiting waiting{
      "step 4",
      {{TransferEnd::Direction::send, Rank(3), 5, int64_t{1} << 40}, {TransferEnd::Direction::receive, Rank(0), 6, 7}},
      {9, uint64_t{1} << 62, "attention forward", "plan 5f", 77, "ranks 2-3"}};
  const auto waits = read_waiting(write_waiting(waiting));
  ASSERT_TRUE(waits);
  EXPECT_EQ(waits->operation, "step 4");
  ASSERT_EQ(waits->messages.size(), 2u);
  EXPECT_EQ(waits->messages[0].direction, TransferEnd::Direction::send);
  EXPECT_EQ(waits->messages[0].num_bytes, int64_t{1} << 40);
  EXPECT_EQ(waits->messages[1].direction, TransferEnd::Direction::receive);
  EXPECT_EQ(waits->messages[1].number, 6);
  EXPECT_EQ(to_string(waits->call), "call 9 of ranks 2-3, \"attention forward\" of plan 5f");
  EXPECT_EQ(waits->call.group, 77u);
  EXPECT_EQ(waits->call.hash, uint64_t{1} << 62);

  const auto refusal = read_refusal(write_refusal({failure, 9, 77}));
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->call, 9);
  EXPECT_EQ(refusal->group, 77u);
  EXPECT_EQ(refusal->failure.reason, failure.reason);

  for (const char* text : {"", "-", "3", "3 5:ab", "x 1:a 1:b", "9999999999999:a"}) {
    EXPECT_FALSE(read_failure(text)) << text;
    EXPECT_FALSE(read_refusal(text)) << text;
    EXPECT_FALSE(read_waiting(text)) << text;
  }
}

}  // namespace
}  // namespace evenspan::comm
