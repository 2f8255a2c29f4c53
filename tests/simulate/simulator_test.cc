// Times that can be computed by hand. Links inside a node: 1 s and 100 bytes a second.
#include "evenspan/simulate/simulator.h"

#include <string>

#include "evenspan/core/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scenarios.h"

namespace evenspan::simulate {
namespace {

using test::machine_of;
using test::ScheduleWriter;

const Link kInside{1, 100, 0, 0};

Outcome run_on(const Machine& machine, std::vector<Schedule> schedules, Timeline timeline = Timeline::skip) {
  return Simulator(machine, std::move(schedules)).run({}, timeline);
}

TEST(Simulator, AMessageTakesLatencyAndBytesOverBandwidth) {
  const Machine machine = machine_of(2, 2, {kInside});
  const Outcome run =
      run_on(machine, {ScheduleWriter().exchange({{1, 500}}, {}), ScheduleWriter().exchange({}, {{0, 500}})});
  EXPECT_DOUBLE_EQ(run.makespan_seconds, 1 + 5);
  EXPECT_DOUBLE_EQ(run.ranks[0].transfer_seconds, 6);
  EXPECT_DOUBLE_EQ(run.ranks[1].transfer_seconds, 6);
  EXPECT_EQ(run.ranks[0].compute_seconds, 0);
}

TEST(Simulator, EachFurtherMessageToARankTakesLonger) {
  Link link{1, 100};
  link.message_seconds = 0.25;
  const Outcome run =
      Simulator(machine_of(3, 3, {link}), {ScheduleWriter().exchange({{1, 100}, {1, 50}, {1, 50}}, {{2, 100}}),
                                           ScheduleWriter().exchange({}, {{0, 100}, {0, 50}, {0, 50}}),
                                           ScheduleWriter().exchange({{0, 100}}, {})})
          .run();
  EXPECT_DOUBLE_EQ(run.ranks[1].finish_seconds, 1 + 2 * 0.25 + 2);
  EXPECT_DOUBLE_EQ(run.ranks[2].finish_seconds, 2);
}

TEST(Simulator, BothDirectionsHaveTheWholeBandwidth) {
  const Machine machine = machine_of(2, 2, {kInside});
  const Outcome run = run_on(
      machine, {ScheduleWriter().exchange({{1, 500}}, {{1, 300}}), ScheduleWriter().exchange({{0, 300}}, {{0, 500}})});
  EXPECT_DOUBLE_EQ(run.makespan_seconds, 6);
}

TEST(Simulator, AMessageBeginsWhenBothEndsAreThere) {
  const Machine machine = machine_of(2, 2, {kInside});
  const Outcome run = run_on(
      machine, {ScheduleWriter().exchange({{1, 500}}, {}), ScheduleWriter().compute(4).exchange({}, {{0, 500}})});
  EXPECT_DOUBLE_EQ(run.makespan_seconds, 4 + 6);
  EXPECT_DOUBLE_EQ(run.ranks[0].transfer_seconds, 6) << "waiting for the other end is no transfer";
}

TEST(Simulator, AnExchangeMayTakeTheComputeEngine) {
  const auto both = [&](double byte_seconds, double message_seconds) {
    Link link = kInside;
    link.compute_byte_seconds = byte_seconds;
    link.compute_message_seconds = message_seconds;
    const Schedule one = ScheduleWriter().exchange({{1, 500}}, {{1, 500}}).compute(4).compute(3, {0});
    const Schedule other = ScheduleWriter().exchange({{0, 500}}, {{0, 500}}).compute(4).compute(3, {0});
    return run_on(machine_of(2, 2, {link}), {one, other}).makespan_seconds;
  };
  EXPECT_DOUBLE_EQ(both(0, 0), 6 + 3);
  EXPECT_DOUBLE_EQ(both(0, 0.5), 6 + 3) << "messages are under way from when the step starts";
  EXPECT_DOUBLE_EQ(both(0.003, 1), 5 + 4 + 3) << "and kernels come after it: 2 messages, 1,000 bytes";
}

TEST(Simulator, MessagesTakeTheComputeEngineAsTheirLinkSays) {
  Link between{2, 100};
  between.compute_message_seconds = 8;
  // Rank 0 sends to its neighbour in the node and to another node.
  const Outcome run =
      run_on(machine_of(4, 2, {kInside, between}),
             {ScheduleWriter().exchange({{1, 100}, {2, 100}}, {}), ScheduleWriter().exchange({}, {{0, 100}}),
              ScheduleWriter().exchange({}, {{0, 100}}), ScheduleWriter()});
  EXPECT_DOUBLE_EQ(run.ranks[0].compute_seconds, 8);
  EXPECT_DOUBLE_EQ(run.ranks[1].compute_seconds, 0);
  EXPECT_DOUBLE_EQ(run.ranks[2].compute_seconds, 8);
}

TEST(Simulator, RanksShareCores) {
  Machine machine = machine_of(3, 3, {kInside});
  machine.num_cores = 2;
  // Until 3 each of three ranks has 2/3 of a core, and the first is done; then each of two has one.
  const std::vector<Schedule> three{ScheduleWriter().compute(2), ScheduleWriter().compute(4),
                                    ScheduleWriter().compute(1).compute(4)};
  const Outcome run = run_on(machine, three, Timeline::record);
  EXPECT_DOUBLE_EQ(run.ranks[0].finish_seconds, 3);
  EXPECT_DOUBLE_EQ(run.ranks[1].finish_seconds, 5);
  EXPECT_DOUBLE_EQ(run.ranks[2].finish_seconds, 6);
  EXPECT_DOUBLE_EQ(run.ranks[1].compute_seconds, 4) << "on a core of its own";
  EXPECT_DOUBLE_EQ(run.timeline[1].end_seconds, 5);
  EXPECT_DOUBLE_EQ(run.timeline[2].end_seconds, 1.5) << "the first step of rank 2";
  machine.num_cores = 3;
  EXPECT_DOUBLE_EQ(run_on(machine, three).makespan_seconds, 5) << "enough for all";
}

TEST(Simulator, ARankThatWaitsLeavesItsCoreToOthers) {
  Machine machine = machine_of(2, 2, {kInside});
  machine.num_cores = 1;
  // Both at half a core until the first has done its 1 s, at 2; the message takes 6 s, in which the other has it alone.
  const Outcome run = run_on(machine, {ScheduleWriter().compute(1).exchange({{1, 500}}, {}),
                                       ScheduleWriter().exchange({}, {{0, 500}}).compute(5).compute(1, {0})});
  EXPECT_DOUBLE_EQ(run.ranks[0].finish_seconds, 2 + 6);
  EXPECT_DOUBLE_EQ(run.ranks[1].finish_seconds, 8 + 1) << "its 5 s are done at 6";
}

TEST(Simulator, ComputeHidesATransferUntilAStepWaits) {
  const Machine machine = machine_of(2, 2, {kInside});
  const Schedule sender = ScheduleWriter().exchange({{1, 500}}, {}).compute(2);
  // 4 s run beside the transfer of 6 s, then 3 s wait for it.
  const Outcome run = run_on(machine, {sender, ScheduleWriter().exchange({}, {{0, 500}}).compute(4).compute(3, {0})});
  EXPECT_DOUBLE_EQ(run.ranks[1].finish_seconds, 6 + 3);
  EXPECT_DOUBLE_EQ(run.ranks[1].compute_seconds, 7);
  EXPECT_DOUBLE_EQ(run.ranks[0].finish_seconds, 6) << "a program ends when its exchanges are complete";
  // 8 s hide it whole.
  const Outcome hidden =
      run_on(machine, {sender, ScheduleWriter().exchange({}, {{0, 500}}).compute(8).compute(3, {0})});
  EXPECT_DOUBLE_EQ(hidden.ranks[1].finish_seconds, 8 + 3);
}

TEST(Simulator, ARanksWayOutIsShared) {
  const Machine machine = machine_of(3, 3, {kInside});
  // 1 s, then both at 50 a second until 4 s are spent on 2 x 200; the rest of 300 alone.
  const Outcome run =
      run_on(machine, {ScheduleWriter().exchange({{1, 200}, {2, 500}}, {}), ScheduleWriter().exchange({}, {{0, 200}}),
                       ScheduleWriter().exchange({}, {{0, 500}})});
  EXPECT_DOUBLE_EQ(run.ranks[1].finish_seconds, 1 + 4);
  EXPECT_DOUBLE_EQ(run.ranks[2].finish_seconds, 1 + 4 + 3);
}

TEST(Simulator, ARanksWayInIsShared) {
  const Machine machine = machine_of(3, 3, {kInside});
  const Outcome run =
      run_on(machine, {ScheduleWriter().exchange({{2, 300}}, {}), ScheduleWriter().exchange({{2, 300}}, {}),
                       ScheduleWriter().exchange({}, {{0, 300}, {1, 300}})});
  EXPECT_DOUBLE_EQ(run.makespan_seconds, 1 + 6);
}

TEST(Simulator, RanksOfANodeShareACard) {
  // Nodes {0, 1} and {2, 3}; between them 2 s, 100 bytes a second a rank.
  const auto schedules = [] {
    return std::vector<Schedule>{ScheduleWriter().exchange({{2, 400}}, {}), ScheduleWriter().exchange({{3, 400}}, {}),
                                 ScheduleWriter().exchange({}, {{0, 400}}), ScheduleWriter().exchange({}, {{1, 400}})};
  };
  EXPECT_DOUBLE_EQ(run_on(machine_of(4, 2, {kInside, {2, 100, 1, 100}}), schedules()).makespan_seconds, 2 + 8);
  EXPECT_DOUBLE_EQ(run_on(machine_of(4, 2, {kInside, {2, 100, 1, 160}}), schedules()).makespan_seconds, 2 + 5);
  EXPECT_DOUBLE_EQ(run_on(machine_of(4, 2, {kInside, {2, 100, 2, 100}}), schedules()).makespan_seconds, 2 + 4);
  EXPECT_DOUBLE_EQ(run_on(machine_of(4, 2, {kInside, {2, 100, 2, 50}}), schedules()).makespan_seconds, 2 + 8);
  EXPECT_DOUBLE_EQ(run_on(machine_of(4, 2, {kInside, {2, 100, 0, 0}}), schedules()).makespan_seconds, 2 + 4);
}

TEST(Simulator, LevelsDoNotShareAWay) {
  const Machine machine = machine_of(4, 2, {kInside, {2, 100, 1, 100}});
  const Outcome run =
      run_on(machine, {ScheduleWriter().exchange({{1, 400}, {2, 400}}, {}), ScheduleWriter().exchange({}, {{0, 400}}),
                       ScheduleWriter().exchange({}, {{0, 400}}), ScheduleWriter()});
  EXPECT_DOUBLE_EQ(run.ranks[1].finish_seconds, 1 + 4);
  EXPECT_DOUBLE_EQ(run.ranks[2].finish_seconds, 2 + 4);
  EXPECT_EQ(run.ranks[3].finish_seconds, 0);
}

TEST(Simulator, ExchangesOfARankFollowEachOther) {
  const Machine machine = machine_of(3, 3, {kInside});
  // The second exchange is reached at once, and waits 10 s for the first one's peer.
  const Outcome run = run_on(
      machine, {ScheduleWriter().exchange({{1, 100}}, {}).exchange({{2, 100}}, {}),
                ScheduleWriter().compute(10).exchange({}, {{0, 100}}), ScheduleWriter().exchange({}, {{0, 100}})});
  EXPECT_DOUBLE_EQ(run.ranks[1].finish_seconds, 12);
  EXPECT_DOUBLE_EQ(run.ranks[2].finish_seconds, 14);
}

TEST(Simulator, ARingOfFourIsItsClosedForm) {
  // Step s: attend for `compute` seconds to what came in step s - 1, while the next keys and values travel.
  constexpr int kRanks = 4;
  for (const double compute : {3.0, 9.0}) {
    std::vector<Schedule> schedules;
    for (int r = 0; r < kRanks; ++r) {
      ScheduleWriter writer;
      const int next = (r + 1) % kRanks, before = (r + kRanks - 1) % kRanks;
      for (int step = 0; step + 1 < kRanks; ++step) {
        const std::vector<int32_t> received = step == 0 ? std::vector<int32_t>{} : std::vector<int32_t>{step - 1};
        writer.exchange({{next, 500}}, {{before, 500}}, received).compute(compute, received);
      }
      schedules.push_back(writer.compute(compute, {kRanks - 2}));
    }
    const Outcome run = run_on(machine_of(kRanks, kRanks, {kInside}), std::move(schedules));
    const double transfer = 1 + 5;
    EXPECT_DOUBLE_EQ(run.makespan_seconds, (kRanks - 1) * std::max(transfer, compute) + compute);
    for (const RankUse& use : run.ranks) EXPECT_DOUBLE_EQ(use.compute_seconds, kRanks * compute);
  }
}

TEST(Simulator, AllToAllIsItsClosedForm) {
  constexpr int kRanks = 5;
  std::vector<Schedule> schedules;
  for (int r = 0; r < kRanks; ++r) {
    std::vector<std::pair<int, int64_t>> peers;
    for (int peer = 0; peer < kRanks; ++peer) {
      if (peer != r) peers.emplace_back(peer, 250);
    }
    schedules.push_back(ScheduleWriter().exchange(peers, peers));
  }
  EXPECT_NEAR(run_on(machine_of(kRanks, kRanks, {kInside}), std::move(schedules)).makespan_seconds, 1 + 4 * 2.5, 1e-9);
}

TEST(Simulator, RanksBeginAtTheirStarts) {
  const Simulator simulator(machine_of(2, 2, {kInside}),
                            {ScheduleWriter().exchange({{1, 500}}, {}), ScheduleWriter().exchange({}, {{0, 500}})});
  EXPECT_DOUBLE_EQ(simulator.run({7, 3}).makespan_seconds, 7 + 6);
  EXPECT_DOUBLE_EQ(simulator.run().makespan_seconds, 6) << "runs are independent";
}

TEST(Simulator, TimelineHasStepsAndExchanges) {
  const Outcome run = run_on(
      machine_of(2, 2, {kInside}),
      {ScheduleWriter().compute(2).exchange({{1, 300}}, {}), ScheduleWriter().exchange({}, {{0, 300}}).compute(1, {0})},
      Timeline::record);
  std::vector<std::string> lines;
  for (const Interval& i : run.timeline) {
    lines.push_back(join_text(i.rank, i.engine == Engine::compute ? " compute " : " communication ", i.begin_seconds,
                              " to ", i.end_seconds, " bytes ", i.sent_bytes));
  }
  EXPECT_THAT(lines, testing::UnorderedElementsAre("0 compute 0 to 2 bytes 0", "0 communication 2 to 6 bytes 300",
                                                   "1 communication 2 to 6 bytes 0", "1 compute 6 to 7 bytes 0"));
}

TEST(Simulator, BytesCountAtTheirLevel) {
  const Simulator simulator(
      machine_of(4, 2, {kInside, {2, 100, 1, 100}}),
      {ScheduleWriter().exchange({{1, 30}, {2, 500}}, {}), ScheduleWriter().exchange({{3, 4}}, {{0, 30}}),
       ScheduleWriter().exchange({}, {{0, 500}}), ScheduleWriter().exchange({}, {{1, 4}})});
  EXPECT_THAT(simulator.sent_bytes_by_level(), testing::ElementsAre(30, 504));
}

std::string refusal(std::vector<Schedule> schedules) {
  try {
    run_on(machine_of(2, 2, {kInside}), std::move(schedules));
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Simulator, MessagesWithoutAnOtherEndAreRefused) {
  EXPECT_THAT(refusal({ScheduleWriter().exchange({{1, 500}}, {}), ScheduleWriter()}),
              testing::HasSubstr("rank 0 sends to rank 1 a message of 500 bytes that the other end does not have"));
  EXPECT_THAT(refusal({ScheduleWriter(), ScheduleWriter().exchange({}, {{0, 500}})}),
              testing::HasSubstr("rank 0 shall send to rank 1 a message of 500 bytes"));
  EXPECT_THAT(refusal({ScheduleWriter().exchange({{1, 500}}, {}), ScheduleWriter().exchange({}, {{0, 400}})}),
              testing::HasSubstr("a message of 500 bytes that the other end does not have"));
}

TEST(Simulator, RanksThatWaitForEachOtherAreRefused) {
  const Schedule zero = ScheduleWriter().exchange({{1, 1}}, {}).exchange({}, {{1, 1}});
  const Schedule one = ScheduleWriter().exchange({{0, 1}}, {}).exchange({}, {{0, 1}});
  EXPECT_THAT(refusal({zero, one}), testing::HasSubstr("rank 0 waits for ever"));
}

}  // namespace
}  // namespace evenspan::simulate
