// Groups of ranks: their calls are their own, their failures everybody's.
#include <gtest/gtest.h>

#include <thread>

#include "both_backends.h"
#include "collective_cases.h"
#include "evenspan/comm/mesh.h"
#include "evenspan/core/error.h"
#include "exchange_cases.h"

namespace evenspan::comm {
namespace {

class Split : public Both {};
INSTANTIATE_TEST_SUITE_P(Backends, Split, testing::Bool(), backend_name);

std::vector<Rank> ranks(std::initializer_list<int> numbers) {
  std::vector<Rank> out;
  for (const int number : numbers) out.emplace_back(number);
  return out;
}

// The half of the ranks that the own one is in.
Communicator half(const Communicator& c) { return c.split(Mesh(c.size(), 2).sequence_group(c.rank())); }

int64_t sum(const Communicator& c, int64_t value, const std::string& operation = "sum") {
  return all_reduce(c, at::full({1}, value, at::kLong), operation).item<int64_t>();
}

[[noreturn]] void refuse_in_group() { fail_invalid("[layer] query is Double; convert it"); }

TEST_P(Split, AGroupIsACommunicatorLikeAnyOther) {
  expect_no_errors(5, [](const Communicator& c) {
    const std::vector<std::vector<Rank>> groups = {ranks({0, 2, 4}), ranks({1, 3})};
    const Communicator group = c.split(groups[static_cast<size_t>(c.rank() % 2)]);
    EXPECT_EQ(group.rank(), c.rank() / 2);
    EXPECT_EQ(group.size(), c.rank() % 2 == 0 ? 3 : 2);
    EXPECT_EQ(group.outermost(group.rank()), c.rank());
    messages_keep_their_order(group);
    all_pairs_in_any_order(group);
    works_complete_once(group);
    collectives_are_exact(group);
    collectives_are_exact(c);
  });
}

TEST_P(Split, GroupsCallAnyNumberOfTimesBetweenCallsOfAll) {
  expect_no_errors(4, [](const Communicator& c) {
    EXPECT_EQ(sum(c, 1), 4);
    const Communicator group = half(c);
    const bool first = c.rank() < 2;
    for (int trial = 0; trial < 5; ++trial) {
      const int calls = first ? 2 : 40 - 9 * trial;
      for (int i = 0; i < calls; ++i) EXPECT_EQ(sum(group, c.rank(), first ? "a" : "b"), first ? 1 : 5);
      EXPECT_EQ(sum(c, c.rank()), 6);
    }
  });
}

TEST_P(Split, GroupsOfGroupsAndOfOneRankAndSeveralOfTheSameRanks) {
  expect_no_errors(6, [](const Communicator& c) {
    const Communicator outer = c.split(c.rank() == 5 ? ranks({5}) : ranks({0, 1, 2, 3, 4}));
    EXPECT_EQ(sum(outer, 1), c.rank() == 5 ? 1 : 5);
    if (c.rank() == 5) {
      barrier(outer);
    } else {
      const Communicator inner = outer.split(outer.rank() % 2 == 0 ? ranks({0, 2, 4}) : ranks({1, 3}));
      EXPECT_EQ(inner.outermost(inner.rank()), c.rank());
      const Communicator again = outer.split(outer.rank() % 2 == 0 ? ranks({0, 2, 4}) : ranks({1, 3}));
      EXPECT_NE(inner.call_hash(), again.call_hash());
      const auto work = inner.exchange({{next(inner), filled(3, c.rank())}}, {{previous(inner), filled(3, 0)}}, "one");
      EXPECT_EQ(sum(again, c.rank()), c.rank() % 2 == 0 ? 6 : 4);
      work->wait();
    }
    EXPECT_EQ(sum(c, 1), 6);
  });
}

// Who waits in the other group, or for all ranks, hears of it too, with the number of the rank among all.
TEST_P(Split, AFailureInAGroupIsTheFailureOfAllRanks) {
  for (const bool others_wait_for_all : {false, true}) {
    const Stopwatch watch;
    const auto errors = errors_of(6, [&](const Communicator& c) {
      const Communicator group = half(c);
      if (c.rank() == 4) {
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
        EXPECT_EQ(group.rank(), 1);
        group.abort("layer", "out of memory");
      } else if (c.rank() == 1 && !others_wait_for_all) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1000));
      }
      if (c.rank() >= 3 || !others_wait_for_all) sum(group, 1, "group");
      barrier(c, "all");
    });
    EXPECT_LT(watch.seconds(), 4);
    for (const std::string& error : errors) expect_text(error, "rank 4 failed in \"layer\": out of memory");
  }
}

TEST_P(Split, AnErrorAfterATransferWasStartedEndsAllRanks) {
  const auto errors = errors_of(4, [](const Communicator& c) {
    const Communicator group = half(c);
    const bool fails = c.rank() == 3;
    const auto layer = [&] {
      group.call("layer", "", [&] {
        barrier(group);
        if (fails) refuse_in_group();
      });
    };
    if (fails) {
      expect_text(error_of(layer), "query is Double");
    } else {
      layer();
    }
    barrier(c, "later");
  });
  for (const std::string& error : errors) expect_text(error, "rank 3 failed in \"layer\": [layer] query is Double");
}

TEST_P(Split, MembersThatAllRefuseACallGoOn) {
  expect_no_errors(4, [](const Communicator& c) {
    const Communicator group = half(c);
    for (int i = 0; i < 3; ++i) {
      const uint64_t before = group.call_hash();
      if (c.rank() < 2) {
        expect_text(error_of([&] { group.call("layer", "", refuse_in_group); }), "query is Double");
        EXPECT_EQ(group.call_hash(), before);
      }
      EXPECT_EQ(sum(group, 1), 2);
      EXPECT_EQ(sum(c, 1), 4);
    }
  });
}

// The other group is in a call of the same number, which nobody refuses.
TEST_P(Split, ARefusalOfOneMemberIsTheErrorOfAllRanks) {
  for (const bool goes_on : {false, true}) {
    const Stopwatch watch;
    const auto errors = errors_of(4, [&](const Communicator& c) {
      const Communicator group = half(c);
      if (c.rank() == 1) {
        expect_text(error_of([&] { group.call("layer", "", refuse_in_group); }), "query is Double");
        if (!goes_on) return;
      }
      EXPECT_EQ(sum(group, 1), 2);
      barrier(c, "all");
    });
    EXPECT_LT(watch.seconds(), 4);
    for (const int rank : {0, 2, 3}) {
      expect_text(errors[rank], "rank 1 failed in \"layer\": [layer] query is Double");
    }
    EXPECT_EQ(errors[1].empty(), !goes_on);
  }
}

TEST_P(Split, CallsInAnotherOrderAreNamedWithTheirGroup) {
  const auto errors = errors_of(4, [](const Communicator& c) {
    const Communicator group = half(c);
    sum(group, 1, c.rank() == 2 ? "one" : "other");
    barrier(c, "all");
  });
  for (const std::string& error : errors) {
    expect_text(error,
                "rank 2 made call 1 of ranks 2-3, \"one\" of Long [1], where rank 3 made call 1 of ranks 2-3, "
                "\"other\" of Long [1]");
  }
}

TEST_P(Split, ComparisonsNumberTheRanksAmongAll) {
  expect_no_errors(4, [](const Communicator& c) {
    const Communicator group = half(c);
    const std::string error = error_of([&] {
      compare(group, {{"step", c.rank() == 3 ? 8u : 7u}}, {"step check", "steps", "mend it"});
    });
    EXPECT_EQ(error, c.rank() < 2 ? ""
                                  : "[step check] ranks 2 and 3 hold different steps: they differ in step (7 on rank "
                                    "2, 8 on rank 3); mend it");
    barrier(c);
  });
}

// With as many bytes at both ends, numbers of messages alone would let them meet.
TEST(SplitThreads, MessagesOfAGroupAndOfAllDoNotMeet) {
  const auto errors = errors_of(2, [](const Communicator& c) {
    const Communicator group = c.split(ranks({0, 1}));
    barrier(c.rank() == 0 ? c : group, "tick");
  });
  for (const std::string& error : errors) {
    expect_text(error, "rank 0 made call 2, \"tick\", where rank 1 made call 1 of ranks 0-1, \"tick\"");
  }
}

TEST_P(Split, ARecordingCommunicatorCountsWhatItsGroupsSend) {
  expect_no_errors(4, [](const Communicator& inner) {
    auto recorded = std::make_shared<Recorded>();
    const Communicator c = make_recording_communicator(inner, recorded);
    const Communicator group = half(c);
    auto of_group = std::make_shared<Recorded>();
    const Communicator counted = make_recording_communicator(group, of_group);
    *recorded = {};
    counted.exchange({{next(counted), filled(5, 1)}}, {{previous(counted), filled(5, 0)}}, "layer")->wait();
    for (const auto& [seen, peer] : {std::pair(recorded, c.rank() ^ 1), std::pair(of_group, 1 - group.rank())}) {
      ASSERT_EQ(seen->sends.size(), 1u);
      EXPECT_EQ(seen->sends[0].peer, peer);
      EXPECT_EQ(seen->sends[0].operation, "layer");
      EXPECT_EQ(seen->sent_bytes(), 20);
    }
    const Communicator alone = counted.split({counted.rank()});
    EXPECT_EQ(alone.outermost(Rank(0)), inner.rank());
  });
}

TEST_P(Split, MembersAreChecked) {
  const auto refused = [](const std::vector<Rank>& members, const std::string& rule) {
    expect_no_errors(2, [&](const Communicator& c) {
      const std::vector<Rank> given = c.rank() == 0 ? members : std::vector<Rank>{};
      const std::string text = c.rank() == 0 ? rule : "a rank is a member of its group, but rank 1 gave none";
      expect_text(error_of([&] { c.split(given, "make groups"); }), "[make groups] " + text);
      barrier(c);
    });
  };
  refused(ranks({1}), "a rank is a member of its group, but rank 0 gave 1; give the group that holds it");
  refused(ranks({0, 0, 1}), "members are ascending, each once, but rank 0 gave 0, 0, 1; sort them");
  refused(ranks({1, 0}), "members are ascending, each once, but rank 0 gave 1, 0");
  refused(ranks({0, 2}), "members are in [0, 2), but rank 0 gave 0, 2; number the ranks inside the communicator");
  refused(ranks({-1, 0}), "members are in [0, 2), but rank 0 gave -1, 0");
}

TEST_P(Split, ListsThatDifferAreTheErrorOfAllRanksAndEndNothing) {
  expect_no_errors(3, [](const Communicator& c) {
    const std::string error = error_of([&] { c.split(c.rank() == 0 ? ranks({0, 1}) : ranks({1, 2})); });
    EXPECT_EQ(error,
              "[split] all members of a group name the same ranks, but rank 0 gave 0, 1 and rank 1 gave 1, 2; give "
              "every rank the whole of its one group");
    EXPECT_EQ(sum(c.split(c.rank() == 0 ? ranks({0}) : ranks({1, 2})), 1), c.rank() == 0 ? 1 : 2);
  });
}

TEST_P(Split, ARankThatGivesWrongMembersIsTheErrorOfAll) {
  const auto errors = errors_of(3, [](const Communicator& c) {
    if (c.rank() == 1) {
      expect_text(error_of([&] { c.split(ranks({0})); }), "a rank is a member of its group");
    } else {
      c.split({c.rank()});
    }
  });
  for (const int rank : {0, 2}) expect_text(errors[rank], "rank 1 failed in \"split\": [split] a rank is a member");
  EXPECT_EQ(errors[1], "");
}

TEST(MeshAxes, AdjacentRanksShareDocuments) {
  const Mesh mesh(6, 2);
  EXPECT_EQ(mesh.num_ranks(), 6);
  EXPECT_EQ(mesh.num_replicas(), 2);
  EXPECT_EQ(mesh.sequence_ranks(), 3);
  EXPECT_EQ(mesh.replica_of(Rank(2)), 0);
  EXPECT_EQ(mesh.replica_of(Rank(3)), 1);
  EXPECT_EQ(mesh.sequence_group(Rank(4)), ranks({3, 4, 5}));
  EXPECT_EQ(Mesh(4, 4).sequence_group(Rank(2)), ranks({2}));
  EXPECT_EQ(Mesh().num_ranks(), 1);
}

TEST(MeshAxes, AreRefusedWithWhatWouldServe) {
  for (const int64_t replicas : {int64_t{4}, int64_t{0}, int64_t{-2}, int64_t{12}, int64_t{1} << 32}) {
    const std::string error = error_of([&] { const Mesh mesh(6, replicas); });
    expect_text(error, "[mesh] replicas have the same number of ranks, at least one each, but " +
                           std::to_string(replicas) +
                           " do not divide 6 ranks; give as many replicas as one of 1, 2, 3, 6");
  }
  expect_text(error_of([] { const Mesh mesh(0, 1); }), "[mesh] there is at least 1 rank");
}

TEST(RanksText, JoinsNeighbours) {
  EXPECT_EQ(to_string(ranks({2})), "rank 2");
  EXPECT_EQ(to_string(ranks({0, 1, 2, 3, 8})), "ranks 0-3, 8");
  EXPECT_EQ(to_string(ranks({0, 2, 3})), "ranks 0, 2-3");
}

}  // namespace
}  // namespace evenspan::comm
