// What ranks of a pass wait for, by hand.
#include "simulate/pass_bound.h"

#include <cmath>

#include "gtest/gtest.h"
#include "scenarios.h"

namespace evenspan::simulate {
namespace {

using Times = std::vector<double>;

// Links of 1 s and 100 bytes a second.
Machine two_ranks() { return make_machine(test::simple_profile(), 2, 2); }

Times ends(PassBound* pass, Times starts) {
  pass->run(&starts);
  return starts;
}

TEST(PassBound, IsWhatRanksComputeWhereNothingTravels) {
  const Machine machine = two_ranks();
  PassBound pass(machine, 2);
  pass.compute(0, 0, 3, 3, 0);
  pass.compute(0, 1, 4, 4, 0);
  pass.add_compute(1, 5);
  pass.close();
  EXPECT_EQ(ends(&pass, {0, 10}), (Times{7, 15}));
  EXPECT_EQ(pass.seconds_alone(), (Times{7, 5}));
}

TEST(PassBound, WaitsForWhatArrivesAndForItsSender) {
  const Machine machine = two_ranks();
  PassBound pass(machine, 2);
  pass.compute(0, 0, 1, 1, 0);
  pass.compute(0, 1, 4, 4, 0);
  pass.compute(1, 0, 2, 2, 0);
  pass.arrive(1, Rank(1), Rank(0), 0, 200);
  pass.close();
  EXPECT_EQ(ends(&pass, {0, 0}), (Times{7, 3})) << "1 s of latency, 2 s under way, 4 s of the second round";
  EXPECT_EQ(ends(&pass, {0, 10}), (Times{17, 13})) << "the sender is late";
  EXPECT_EQ(ends(&pass, {0, -HUGE_VAL}), (Times{7, 3})) << "the sender waits for the receiver";
  EXPECT_EQ(pass.seconds_alone(), (Times{7, 3}));
}

TEST(PassBound, SharesAWayAmongRounds) {
  const Machine machine = two_ranks();
  PassBound pass(machine, 2);
  pass.compute(0, 1, 4, 4, 0);
  pass.arrive(0, Rank(1), Rank(0), 0, 200);
  pass.arrive(1, Rank(1), Rank(0), 0, 300);
  pass.leave_before(1, Rank(0), Rank(1), 0, 100);
  pass.leave_before(2, Rank(0), Rank(1), 0, 600);
  pass.unpack(1, 0.5);
  pass.close();
  // The second round begins at 1 + 5 and ends at 10; what leaves then takes 1 + 6.
  EXPECT_EQ(ends(&pass, {0, 0}), (Times{17, 17}));
}

TEST(PassBound, WaitsWithAPartOfARoundOnly) {
  const Machine machine = two_ranks();
  PassBound pass(machine, 1);
  pass.compute(0, 0, 10, 2, 3);
  pass.arrive(0, Rank(1), Rank(0), 0, 300);
  pass.leave_before(1, Rank(0), Rank(1), 0, 100);
  pass.close();
  EXPECT_EQ(ends(&pass, {0, 0}), (Times{10, 9})) << "what leaves does not wait for the last 3 s of the round";
  EXPECT_EQ(ends(&pass, {0, 6}), (Times{12, 12})) << "2 s behind what arrives after 4 s, and on both sides of it";
}

}  // namespace
}  // namespace evenspan::simulate
