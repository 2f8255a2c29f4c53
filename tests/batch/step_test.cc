#include "evenspan/batch/step.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "evenspan/core/error.h"
#include "small_cost.h"

namespace evenspan::batch {
namespace {

using testing::DoubleEq;
using testing::HasSubstr;
using testing::Pointwise;

Share share(int64_t document, int64_t rank, int64_t tokens) {
  return Share{DocumentIndex(document), Rank(rank), tokens};
}

TEST(Cost, DocumentsOnRanksOfSeveralNodesPayTheRateOfWholeNodes) {
  const Cost cost = small_cost(8, 100);
  EXPECT_EQ(cost.paid_degree(1, 1), 1);
  EXPECT_EQ(cost.paid_degree(2, 1), 2);
  EXPECT_EQ(cost.paid_degree(2, 2), 4);
  EXPECT_EQ(cost.paid_degree(3, 2), 4);
  EXPECT_EQ(cost.paid_degree(3, 3), 8);
  EXPECT_EQ(cost.paid_degree(5, 3), 8);
  EXPECT_EQ(small_cost(3, 100).paid_degree(2, 2), 4);
}

TEST(Price, IsTheSumOverMicroBatchesOfTheirSlowestRank) {
  const Cost cost = small_cost(4, 200);
  const std::vector<int64_t> lengths = {100, 50, 200};
  // Document 0 takes 100 + 10 s of work on one rank; document 1 takes 52.5 s; document 2 takes 240 s and, on two ranks
  // of a node, 20 s more.
  const StepPlan plan{
      {MicroBatch{{share(0, 0, 100), share(1, 3, 50)}}, MicroBatch{{share(2, 2, 150), share(2, 3, 50)}}}};
  ASSERT_EQ(find_fault(plan, lengths, cost), "");
  const StepCost step = price(plan, lengths, cost);
  ASSERT_EQ(step.micro_batches.size(), 2u);
  EXPECT_THAT(step.micro_batches[0].rank_seconds, Pointwise(DoubleEq(), {120.0, 10.0, 10.0, 62.5}));
  EXPECT_THAT(step.micro_batches[1].rank_seconds, Pointwise(DoubleEq(), {10.0, 10.0, 205.0, 75.0}));
  EXPECT_THAT(step.micro_batches[1].rank_tokens, testing::ElementsAre(0, 0, 150, 50));
  EXPECT_DOUBLE_EQ(step.seconds, 325);
  EXPECT_DOUBLE_EQ(step.exchange_fraction, 20 / (4 * 325.0));
  EXPECT_DOUBLE_EQ(step.idle_fraction, 1 - (202.5 + 300) / (4 * 325.0));
  EXPECT_EQ(step.peak_tokens, 150);
}

TEST(FindFault, NamesWhatIsWrong) {
  const Cost cost = small_cost(4, 100);
  const std::vector<int64_t> lengths = {100, 50};
  const auto fault = [&](std::vector<std::vector<Share>> batches) {
    StepPlan plan;
    for (std::vector<Share>& shares : batches) plan.micro_batches.push_back(MicroBatch{std::move(shares)});
    return find_fault(plan, lengths, cost);
  };
  EXPECT_EQ(fault({{share(0, 0, 100), share(1, 1, 50)}}), "");
  EXPECT_EQ(fault({{share(0, 0, 100)}, {share(1, 0, 50)}}), "");
  EXPECT_THAT(fault({{share(0, 0, 100)}}), HasSubstr("document 1 is in no micro-batch"));
  EXPECT_THAT(fault({{share(0, 0, 100), share(1, 1, 50)}, {}}), HasSubstr("micro-batch 1 is empty"));
  EXPECT_THAT(fault({{share(1, 1, 50), share(0, 0, 100)}}), HasSubstr("unsorted"));
  EXPECT_THAT(fault({{share(0, 0, 100), share(1, 0, 50)}}), HasSubstr("rank 0 has 150 tokens in micro-batch 0"));
  EXPECT_THAT(fault({{share(0, 0, 99), share(1, 1, 50)}}), HasSubstr("document 0 has 100 tokens, and its shares 99"));
  EXPECT_THAT(fault({{share(0, 0, 50), share(0, 0, 50), share(1, 1, 50)}}), HasSubstr("two shares on rank 0"));
  EXPECT_THAT(fault({{share(0, 0, 100), share(1, 1, 25)}, {share(1, 1, 25)}}), HasSubstr("its shares 25"));
  EXPECT_THAT(fault({{share(0, 0, 100), share(1, 1, 50)}, {share(1, 1, 50)}}), HasSubstr("in two micro-batches"));
  EXPECT_THAT(fault({{share(0, 0, 100), share(1, 4, 50)}}), HasSubstr("on rank 4"));
  EXPECT_THAT(fault({{share(0, 0, 100), share(2, 1, 50)}}), HasSubstr("document 2"));
  EXPECT_THAT(fault({{share(0, 0, 100), share(0, 1, 0), share(1, 1, 50)}}), HasSubstr("has 0 tokens"));
}

TEST(LowerBound, DividesWorkAndCountsMicroBatches) {
  // 2 ranks hold 200 tokens: 250 need two micro-batches. Work is 5 x (50 + 2.5) s.
  const StepBound bound = lower_bound(std::vector<int64_t>(5, 50), small_cost(2, 100));
  EXPECT_EQ(bound.least_micro_batches, 2);
  EXPECT_DOUBLE_EQ(bound.work_seconds, 131.25);
  EXPECT_NEAR(bound.exchange_seconds, 0, 1e-9);
  EXPECT_NEAR(bound.seconds, 151.25, 1e-9);
}

TEST(LowerBound, MemoryForcesDocumentsOntoRanks) {
  // 150 tokens on ranks that hold 100: two ranks, and 0.1 s a token.
  const StepBound bound = lower_bound(std::vector<int64_t>{150}, small_cost(2, 100));
  EXPECT_NEAR(bound.exchange_seconds, 7.5, 1e-9);
}

TEST(LowerBound, ALongDocumentPaysForTheRanksThatItNeedsInTime) {
  // On 4 ranks, a document of 400 tokens takes 560 s of work, 140 s a rank if it is even. In two nodes it pays 200 s:
  // 190 s in all. On two ranks, in a node, 40 s, but then 300 s.
  const StepBound bound = lower_bound(std::vector<int64_t>{400}, small_cost(4, 400));
  EXPECT_NEAR(bound.seconds, 10 + 190, 1e-6);
  // Beside so much work that there is time for it on two ranks it pays their rate.
  const StepBound beside = lower_bound(std::vector<int64_t>{400, 400, 400}, small_cost(4, 400));
  EXPECT_NEAR(beside.seconds, 10 + (3 * 560 + 3 * 40) / 4.0, 1e-6);
}

TEST(LowerBound, TokensThatOneMicroBatchHasNoRoomForTakeTheirTimeElsewhere) {
  // 2 ranks of one node hold 400 tokens and have 800, half of them in documents of one token, so one micro-batch at
  // least has only light tokens: 200.2 s on each rank. The document of 400 has the rest of the step.
  Cost cost = small_cost(2, 200);
  cost.exchange_seconds = {0, 0};
  std::vector<int64_t> lengths(400, 1);
  lengths.push_back(400);
  const StepBound bound = lower_bound(lengths, cost);
  EXPECT_EQ(bound.least_micro_batches, 2);
  EXPECT_NEAR(bound.seconds, 20 + (400 * 1.001 + 560) / 2, 1e-6);
}

TEST(CheckDocuments, NamesTheDocumentAndTheMemory) {
  const Cost cost = small_cost(4, 100);
  EXPECT_NO_THROW(check_documents(std::vector<int64_t>{400}, cost));
  const auto text = [&](std::vector<int64_t> lengths) {
    try {
      check_documents(lengths, cost);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_THAT(text({}), HasSubstr("there are no documents"));
  EXPECT_THAT(text({5, 0}), HasSubstr("document 1 has 0 tokens"));
  EXPECT_THAT(text({5, 401}),
              HasSubstr("document 1 has 401 tokens and fits on no group: all 4 ranks together hold 400"));
}

}  // namespace
}  // namespace evenspan::batch
