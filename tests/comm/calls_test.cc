// Ranks that part: one refuses a call, or makes others. All hear why, and who does the same everywhere goes on.
#include "evenspan/comm/calls.h"

#include <gtest/gtest.h>

#include "both_backends.h"
#include "evenspan/core/error.h"

namespace evenspan::comm {
namespace {

class Calling : public Both {};
INSTANTIATE_TEST_SUITE_P(Backends, Calling, testing::Bool(), backend_name);

[[noreturn]] void refuse_type() { fail_invalid("[layer] query is Double, the plan is for Float; convert it"); }

// One layer's pass: every rank sends 4 bytes to the next one.
void pass(const Communicator& c, const std::string& subject, bool wrong = false) {
  c.call("layer forward", subject, [&] {
    if (wrong) refuse_type();
    c.exchange({{next(c), filled(1, 1)}}, {{previous(c), filled(1, 0)}}, "layer forward, exchange 0")->wait();
  });
}

TEST_P(Calling, RanksThatAllRefuseACallGoOn) {
  const auto errors = errors_of(3, [](const Communicator& c) {
    pass(c, "plan a");
    for (int i = 0; i < 3; ++i) {
      const uint64_t before = c.call_hash();
      expect_text(error_of([&] { pass(c, i == c.rank() ? "plan b" : "plan a", true); }), "query is Double");
      EXPECT_EQ(c.call_hash(), before);
      c.refuse("the caller's code", "ValueError");
      barrier(c);
    }
    pass(c, "plan a");
    EXPECT_EQ(error_of([&] { compare(c, {{"calls", c.call_hash()}}, {"check", "calls", "mend it"}); }), "");
  });
  for (const std::string& error : errors) EXPECT_EQ(error, "");
}

TEST_P(Calling, ARefusalOfOneRankIsTheErrorOfAll) {
  for (const bool goes_on : {false, true}) {
    const Stopwatch watch;
    const auto errors = errors_of(3, [&](const Communicator& c) {
      pass(c, "plan a");
      if (c.rank() == 1) {
        expect_text(error_of([&] { pass(c, "plan a", true); }), "query is Double");
        if (!goes_on) return;
      }
      for (int i = 0; i < 3; ++i) pass(c, "plan a");
    });
    EXPECT_LT(watch.seconds(), 4);
    for (const int rank : {0, 2}) {
      expect_text(errors[rank], "rank 1 failed in \"layer forward\": [layer] query is Double, the plan is for Float");
    }
    EXPECT_EQ(errors[1].empty(), !goes_on);
  }
}

TEST_P(Calling, AnErrorAfterATransferWasStartedEndsTheGroup) {
  const auto errors = errors_of(2, [](const Communicator& c) {
    const auto fail_late = [&] {
      c.call("layer forward", "", [&] {
        barrier(c);
        refuse_type();
      });
    };
    expect_text(error_of(fail_late), "query is Double");
    barrier(c, "later");
  });
  for (const std::string& error : errors) expect_text(error, " failed in \"layer forward\": [layer] query is Double");
}

// All messages have one size, so that numbers of bytes tell nothing.
TEST_P(Calling, CallsInAnotherOrderAreNamedOnAllRanks) {
  const Stopwatch watch;
  const auto errors = errors_of(2, [](const Communicator& c) {
    pass(c, "plan a");
    pass(c, c.rank() == 0 ? "plan a" : "plan b");
    pass(c, c.rank() == 0 ? "plan b" : "plan a");
  });
  EXPECT_LT(watch.seconds(), 4);
  for (const std::string& error : errors) {
    expect_text(error,
                "all ranks make the same calls in the same order, but rank 0 made call 2, \"layer forward\" of "
                "plan a, where rank 1 made call 2, \"layer forward\" of plan b; look for a layer");
  }
}

TEST_P(Calling, ACallThatOneRankLeavesOutIsFoundLater) {
  const auto errors = errors_of(3, [](const Communicator& c) {
    if (c.rank() != 2) c.call("layer forward", "plan of that rank alone", [] {});
    pass(c, "plan a");
  });
  for (const std::string& error : errors) {
    expect_text(error, "\"layer forward\" of plan a");
    expect_text(error, "rank 2 made call 1");
  }
}

TEST_P(Calling, CollectivesAreCallsUnlessTheyArePartsOfOne) {
  const auto errors = errors_of(2, [](const Communicator& c) {
    c.call("layer", "", [&] { all_reduce(c, filled(3, 1)); });
    EXPECT_EQ(c.backend()->calls()->current()->number, 1);
    all_reduce(c, filled(3, 1), "sum");
    EXPECT_EQ(to_string(*c.backend()->calls()->current()), "call 2, \"sum\" of Float [3]");
    EXPECT_EQ(to_string(*make_recording_communicator(c, std::make_shared<Recorded>()).backend()->calls()->current()),
              "call 2, \"sum\" of Float [3]");
  });
  for (const std::string& error : errors) EXPECT_EQ(error, "");
}

TEST_P(Calling, ComparisonsNameWhatDiffersAndLeaveTheGroupAlone) {
  const auto errors = errors_of(3, [](const Communicator& c) {
    const bool other = c.rank() == 2;
    const uint64_t hash = uint64_t{1} << 60;
    const Comparison batches{"step check", "batches", "give every rank the same batch"};
    compare(c, {{"tokens", hash}, {"step", 3}}, batches);
    EXPECT_EQ(error_of([&] {
                compare(c, {{"tokens", hash + (other ? 1 : 0)}, {"labels", 7}, {"step", other ? 4u : 3u}}, batches);
              }),
              "[step check] ranks 0 and 2 hold different batches: they differ in tokens, step (3 on rank 0, 4 on rank "
              "2); give every rank the same batch");
    expect_text(error_of([&] { compare(c, {{other ? "step" : "epoch", 3}}, batches); }), "in what they compare");
    barrier(c);
  });
  for (const std::string& error : errors) EXPECT_EQ(error, "");
}

}  // namespace
}  // namespace evenspan::comm
