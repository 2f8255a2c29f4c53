// Batches of many documents: what took the square of their number would run here for minutes. And the structures that
// keep it from that, against plain ones.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>

#include "evenspan/plan/plan.h"
#include "evenspan/plan/program.h"
#include "plan/solve/rank_spans.h"
#include "plan/strategy/strategy.h"

namespace evenspan::plan {
namespace {

Request request_of(std::vector<int64_t> lengths, const std::string& strategy, int32_t ranks) {
  Request request;
  request.documents = Documents(std::move(lengths), Mask{});
  request.shape = AttentionShape{4, 2, 16, ElementType::f32};
  request.topology = make_topology(ranks);
  request.options.strategy = strategy;
  return request;
}

// Every output of ulysses goes home as a message of its own: each was looked for among all outputs of the rank.
TEST(ManyDocuments, OutputsFindTheirGroups) {
  const auto plan = make_plan(request_of(std::vector<int64_t>(150'000, 2), "ulysses", 2));
  const RankProgram program = lower(*plan, Rank(0));
  EXPECT_EQ(sent_bytes(program.phase(PhaseKind::forward), plan->request.shape), 150'000 * (2 * 2 + 2 * 1) * 16 * 4);
}

// One document that has to be cut starts the search for fewer keys, whose every move copied the ranks' spans.
TEST(ManyDocuments, SearchMovesOneSpanAtATime) {
  std::vector<int64_t> lengths(64'000, 4);
  lengths.push_back(256'000);
  const Metrics metrics = measure(*make_plan(request_of(std::move(lengths), "sequence_aware", 4)));
  EXPECT_LE(metrics.work_max_over_mean, 1.01);
}

// Ranks whose documents are short attend to others' long ones: tens of thousands of moves, each the best of all.
TEST(ManyDocuments, DisaggregatedLooksAtAlikeDocumentsOnce) {
  std::vector<int64_t> lengths(100'000, 4);
  lengths.resize(150'000, 40);
  const Metrics metrics = measure(*make_plan(request_of(std::move(lengths), "disaggregated", 4)));
  EXPECT_LE(metrics.work_max_over_mean, 1.011);
}

// A program was laid out in the order of addresses, which differ from run to run.
TEST(ManyDocuments, ProgramsDoNotDependOnTheHeap) {
  const auto plan = make_plan(request_of({51, 1970, 259, 115, 22, 1, 389, 64, 1313, 22, 4433, 875}, "zigzag", 16));
  std::mt19937 random(7);
  const RankProgram first = lower(*plan, Rank(3));
  for (int trial = 0; trial < 8; ++trial) {
    std::vector<std::unique_ptr<char[]>> blocks;  // leaves holes of many sizes, in another order each time
    for (int i = 0; i < 20'000; ++i) blocks.push_back(std::make_unique<char[]>(1 + random() % 600));
    std::shuffle(blocks.begin(), blocks.end(), random);
    blocks.resize(blocks.size() / 2);
    EXPECT_EQ(lower(*plan, Rank(3)), first);
  }
}

// The order of plain vectors, from which gaps are closed or filled by the last one.
class PlainSpans {
 public:
  explicit PlainSpans(size_t num_ranks) : ranks_(num_ranks) {}
  std::vector<PlacedSpan>& operator[](size_t rank) { return ranks_[rank]; }

  void add(size_t rank, PlacedSpan placed) {
    auto& spans = ranks_[rank];
    for (size_t i = 0; i < spans.size();) {
      const PlacedSpan other = spans[i];
      if (other.document == placed.document &&
          (other.span.end == placed.span.begin || other.span.begin == placed.span.end)) {
        placed.span = {std::min(placed.span.begin, other.span.begin), std::max(placed.span.end, other.span.end)};
        replace_by_last(rank, i);
        i = 0;
      } else {
        ++i;
      }
    }
    spans.push_back(placed);
  }
  void replace_by_last(size_t rank, size_t i) {
    ranks_[rank][i] = ranks_[rank].back();
    ranks_[rank].pop_back();
  }
  void erase(size_t rank, size_t i) { ranks_[rank].erase(ranks_[rank].begin() + static_cast<int64_t>(i)); }

 private:
  std::vector<std::vector<PlacedSpan>> ranks_;
};

TEST(RankSpans, KeepTheOrderOfPlainVectors) {
  constexpr size_t kRanks = 3;
  constexpr int64_t kDocuments = 40, kParts = 6;
  std::mt19937 random(3);
  PlainSpans plain(kRanks);
  std::vector<std::vector<PlacedSpan>> start(kRanks);
  for (int64_t d = 0; d < kDocuments; ++d) {
    for (int64_t part = 0; part < kParts; ++part) {
      const size_t rank = random() % kRanks;
      start[rank].push_back({DocumentId(d), {10 * part, 10 * part + 10}});
      plain.add(rank, start[rank].back());
    }
  }
  RankSpans spans(kDocuments, start);
  for (int step = 0; step < 20'000; ++step) {
    const size_t from = random() % kRanks, to = random() % kRanks;
    ASSERT_EQ(spans.size(from), plain[from].size());
    if (plain[from].empty()) continue;
    const size_t i = random() % plain[from].size();
    const PlacedSpan moved = plain[from][i];
    const RankSpans::Place place = spans.place(from, i);
    ASSERT_EQ(spans[place], moved);
    ASSERT_EQ(spans.ending_at(moved.document, moved.span.end, kRanks), place);
    if (random() % 2 == 0) {
      spans.erase(place);
      plain.erase(from, i);
    } else {
      spans.replace_by_last(place);
      plain.replace_by_last(from, i);
    }
    const int64_t middle = moved.span.begin + static_cast<int64_t>(random()) % (moved.span.size() + 1);
    for (const Span part : {Span{moved.span.begin, middle}, Span{middle, moved.span.end}}) {
      if (part.empty()) continue;
      if (random() % 4 == 0) {
        spans.push(to, {moved.document, part});
        plain[to].push_back({moved.document, part});
      } else {
        spans.add(to, {moved.document, part});
        plain.add(to, {moved.document, part});
      }
    }
    if (step % 100 != 0) continue;
    for (size_t r = 0; r < kRanks; ++r) {
      ASSERT_EQ(spans.in_order(r), plain[r]);
      std::vector<PlacedSpan> uppers, expected;
      for (const size_t slot : spans.upper_slots(r)) uppers.push_back(spans[{r, slot}]);
      std::copy_if(plain[r].begin(), plain[r].end(), std::back_inserter(expected),
                   [](const PlacedSpan& placed) { return placed.span.begin > 0; });
      ASSERT_EQ(uppers, expected);
    }
  }
}

}  // namespace
}  // namespace evenspan::plan
