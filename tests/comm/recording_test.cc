#include <gtest/gtest.h>

#include "ranks.h"

namespace evenspan::comm {
namespace {

TEST(Recording, CountsWhatLeavesTheRank) {
  run_threads(3, [](const Communicator& inner) {
    auto recorded = std::make_shared<Recorded>();
    const Communicator c = make_recording_communicator(inner, recorded);
    EXPECT_EQ(c.rank(), inner.rank());
    EXPECT_EQ(c.size(), 3);
    c.exchange({{next(c), filled(5, 1)}, {previous(c), filled(0, 1)}},
               {{previous(c), filled(5, 0)}, {next(c), filled(0, 0)}}, "first")
        ->wait();
    c.exchange({{previous(c), filled(2, 1).to(at::kHalf)}}, {{next(c), filled(1, 0)}}, "second")->wait();
    ASSERT_EQ(recorded->sends.size(), 2u);  // nothing leaves for the empty tensor
    EXPECT_EQ(recorded->sends[0].operation, "first");
    EXPECT_EQ(recorded->sends[0].peer, next(c));
    EXPECT_EQ(recorded->sends[0].num_bytes, 20);
    EXPECT_EQ(recorded->sends[1].operation, "second");
    EXPECT_EQ(recorded->sends[1].peer, previous(c));
    EXPECT_EQ(recorded->sends[1].num_bytes, 4);
    EXPECT_EQ(recorded->num_exchanges, 2);
    EXPECT_EQ(recorded->sent_bytes(), 24);
  });
}

TEST(Recording, RecordsNoRefusedExchangeAndPassesOnAborts) {
  run_threads(2, [](const Communicator& inner) {
    auto recorded = std::make_shared<Recorded>();
    const Communicator c = make_recording_communicator(inner, recorded);
    EXPECT_NE(error_of([&] { c.exchange({{c.rank(), filled(1, 1)}}, {}, "to itself"); }), "");
    EXPECT_EQ(recorded->num_exchanges, 0);
    EXPECT_EQ(recorded->sent_bytes(), 0);
    if (c.rank() == 0) c.abort("step", "enough");
    EXPECT_EQ(error_of([&] { barrier(inner); }),
              std::string("[barrier] rank 0 failed in \"step\": enough") + (c.rank() == 0 ? kEnded : ""));
  });
}

}  // namespace
}  // namespace evenspan::comm
