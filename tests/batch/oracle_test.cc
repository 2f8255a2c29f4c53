// The exact optimum of small steps, by hand and beside all planners that need no solver.
#include "oracle.h"

#include <gtest/gtest.h>

#include <limits>

#include "evenspan/batch/planner.h"
#include "evenspan/core/error.h"
#include "evenspan/highs/highs.h"
#include "small_cost.h"

namespace evenspan::batch {
namespace {

constexpr double kNoLimit = std::numeric_limits<double>::infinity();

class OracleTest : public testing::Test {
 protected:
  OracleAnswer ask(std::span<const int64_t> lengths, const Cost& cost, double target) {
    return ask_oracle(lengths, cost, target, *solver_, kNoLimit);
  }

  void expect_optimum(const std::vector<int64_t>& lengths, const Cost& cost, double seconds) {
    const OracleAnswer answer = ask(lengths, cost, seconds * 1.01);
    EXPECT_EQ(answer.verdict, Verdict::worse);
    EXPECT_NEAR(answer.seconds, seconds, seconds * 1e-4);
    EXPECT_EQ(ask(lengths, cost, seconds * 0.999).verdict, Verdict::within);
  }

  std::unique_ptr<MilpSolver> solver_ = highs::open_solver({EVENSPAN_HIGHS});
};

TEST_F(OracleTest, CutsTheDocumentThatIsLeftOver) {
  // Each of 110 s; one is cut over the node for 10 s more: (3 x 110 + 10) / 2 and 10 s of the micro-batch.
  expect_optimum({100, 100, 100}, small_cost(2, 1000), 180);
}

TEST_F(OracleTest, DividesIntoMicroBatchesWhereMemoryIsShort) {
  // Two whole ones, and one cut for 10 s more: 110 + 10 and 120 / 2 + 10.
  expect_optimum({100, 100, 100}, small_cost(2, 100), 190);
}

TEST_F(OracleTest, PaysForNodes) {
  // Of two nodes of two ranks: 1100 s of 1000 pairs a token and 500 s over nodes, on four ranks.
  expect_optimum({1000}, small_cost(4, 250), (2000 + 500) / 4.0 + 10);
  // Three ranks would hold it and are slower.
  expect_optimum({1000}, small_cost(4, 500), (2000 + 500) / 4.0 + 10);
  // Over nodes (2000 + 5000) / 4 would take longer than a node's (2000 + 100) / 2.
  Cost dear = small_cost(4, 500);
  dear.exchange_seconds.back() = 5;
  expect_optimum({1000}, dear, 1050 + 10);
}

TEST_F(OracleTest, IsBelowNoPlan) {
  for (uint64_t seed = 0; seed < 150; ++seed) {
    const OracleCase of = oracle_case(seed);
    if (of.lengths.size() > 5 || of.cost.num_ranks > 4) continue;
    double least = kNoLimit;
    for (const Planner& planner : planners()) {
      if (planner.options.find("solver_seconds") != std::string_view::npos) continue;
      try {
        const StepPlan plan = plan_step(planner, of.lengths, of.cost, {}, {}).plan;
        least = std::min(least, price(plan, of.lengths, of.cost).seconds);
      } catch (const Error&) {  // ranks that are no power of two
      }
    }
    const OracleAnswer answer = ask(of.lengths, of.cost, least * 1.001);
    EXPECT_EQ(answer.verdict, Verdict::worse)
        << "seed " << seed << ": no plan takes less than " << answer.seconds << " s, and one takes " << least;
  }
}

TEST_F(OracleTest, AutoIsNearTheOptimum) {
  constexpr uint64_t kCases = 150;  // bench/batch/oracle_report.cc has more, and larger ones
  int64_t num_cases = 0, num_near = 0;
  for (uint64_t seed = 0; seed < kCases; ++seed) {
    const OracleCase of = oracle_case(seed);
    if (of.lengths.size() > 8 || of.cost.num_ranks > 4) continue;
    const StepPlan plan = plan_step(find_planner("auto"), of.lengths, of.cost, {}, {}).plan;
    const double target = price(plan, of.lengths, of.cost).seconds / 1.01;
    ++num_cases;
    if (target <= lower_bound(of.lengths, of.cost).seconds ||
        ask(of.lengths, of.cost, target).verdict == Verdict::within) {
      ++num_near;
    }
  }
  EXPECT_GE(100 * num_near, 95 * num_cases) << num_near << " of " << num_cases;
}

}  // namespace
}  // namespace evenspan::batch
