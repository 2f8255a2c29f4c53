// Work that takes minutes says how far it is; work of a moment says nothing.
#include "evenspan/core/progress.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace evenspan {
namespace {

struct Screen {
  double time = 100;
  std::vector<std::string> written;
  ProgressSink sink(bool rewrites = false) {
    return {[this](const std::string& text) { written.push_back(text); }, [this] { return time; }, rewrites};
  }
};

TEST(Durations, AreReadable) {
  EXPECT_EQ(duration_text(0), "0 s");
  EXPECT_EQ(duration_text(0.44), "0.4 s");
  EXPECT_EQ(duration_text(59.4), "59 s");
  EXPECT_EQ(duration_text(59.6), "1 min 0 s");
  EXPECT_EQ(duration_text(200), "3 min 20 s");
  EXPECT_EQ(duration_text(7500), "2 h 5 min");
  EXPECT_EQ(duration_text(100 * 3600.0), "4 d 4 h");
  EXPECT_EQ(duration_text(-1), "unknown");
  EXPECT_EQ(duration_text(0.0 / 0.0), "unknown");
}

TEST(Progress, IsQuietForTwoSecondsAndThenRare) {
  Screen screen;
  Progress progress("reading", screen.sink());
  for (int i = 1; i <= 1000; ++i) {  // a part each tenth of a second
    screen.time = 100 + 0.1 * i;
    progress.at(i, 1000);
    EXPECT_TRUE(i >= 20 || screen.written.empty());
  }
  ASSERT_EQ(screen.written.size(), 6u);  // at 2, 4, 8, 16, 32 and 64 seconds
  EXPECT_EQ(screen.written.front(), "reading: 2 %, 1 min 38 s left\n");
  EXPECT_EQ(screen.written.back(), "reading: 64 %, 36 s left\n");
}

TEST(Progress, KeepsOneLineOfATerminalAndTakesItAway) {
  Screen screen;
  {
    Progress progress("reading", screen.sink(true));
    screen.time += 50;
    progress.at(1, 2);
    progress.at(1, 2);
    screen.time += 1;
    progress.at(51, 52);
  }
  ASSERT_EQ(screen.written.size(), 3u);
  EXPECT_EQ(screen.written[0], "\rreading: 50 %, 50 s left");
  EXPECT_EQ(screen.written[1], "\rreading: 98 %, 1 s left ");
  EXPECT_EQ(screen.written[2], "\r" + std::string(screen.written[1].size() - 2, ' ') + "\r");
}

TEST(Progress, SaysTheTimeSoFarWhereNothingElseIsKnown) {
  Screen screen;
  Progress progress("planning", screen.sink());
  screen.time += 3;
  progress.at(0, 10);
  screen.time += 3;
  progress.expect(10);
  screen.time += 10;
  progress.expect(10);
  EXPECT_EQ(screen.written,
            (std::vector<std::string>{"planning: 3 s so far\n", "planning: 6 s so far, about 4 s left\n",
                                      "planning: 16 s so far\n"}));
  Progress("nowhere", silent_sink()).at(1, 2);
}

}  // namespace
}  // namespace evenspan
