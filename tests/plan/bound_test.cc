// The bound holds for every placement of small batches, and some placements meet it.
#include "evenspan/plan/bound.h"

#include <gtest/gtest.h>

#include "plan/strategy/parts.h"
#include "support/sweep.h"

namespace evenspan::plan {
namespace {

Request request_of(const std::vector<int64_t>& lengths, const char* mask, int32_t ranks, double pair_seconds) {
  Request request;
  request.documents = Documents(lengths, parse_mask(mask));
  request.shape = AttentionShape{1, 1, 1, ElementType::f32};
  request.topology = make_topology(ranks);
  request.cost = CostModel{pair_seconds, 1.0};
  return request;
}

// Every way to put every token on a rank: the fewest key tokens that travel within the limits, or -1 if none keeps
// them.
int64_t fewest_by_search(const Request& request, const BalanceLimits& limits) {
  const int64_t num_tokens = request.documents.total_tokens();
  const int32_t ranks = request.num_ranks();
  const double mean_work = lower_bound(request).work_seconds;
  int64_t fewest = -1;
  std::vector<int32_t> rank_of(static_cast<size_t>(num_tokens), 0);
  for (;;) {
    std::vector<std::vector<PlacedSpan>> spans(static_cast<size_t>(ranks));
    std::vector<double> work(static_cast<size_t>(ranks), 0);
    std::vector<int64_t> tokens(static_cast<size_t>(ranks), 0);
    size_t token = 0;
    for (int64_t d = 0; d < request.documents.size(); ++d) {
      const Document& document = request.documents[DocumentId(d)];
      for (int64_t position = 0; position < document.length; ++position) {
        const auto r = static_cast<size_t>(rank_of[token++]);
        const Span span{position, position + 1};
        spans[r].push_back(PlacedSpan{DocumentId(d), span});
        work[r] += request.cost.work(num_pairs(document, span), 1);
        ++tokens[r];
      }
    }
    const double most_tokens = static_cast<double>(num_tokens) / ranks * limits.tokens_max_over_mean;
    bool within = true;
    for (size_t r = 0; r < work.size(); ++r) {
      within &= work[r] <= mean_work * limits.work_max_over_mean * (1 + 1e-12);
      within &= static_cast<double>(tokens[r]) <= most_tokens;
    }
    if (within) {
      const int64_t travel = remote_key_tokens(request, Placement(request.documents, std::move(spans)));
      fewest = fewest < 0 ? travel : std::min(fewest, travel);
    }
    size_t digit = 0;
    while (digit < rank_of.size() && ++rank_of[digit] == ranks) rank_of[digit++] = 0;
    if (digit == rank_of.size()) return fewest;
  }
}

TEST(Bound, HoldsForEveryPlacement) {
  int met = 0, searched = 0, cut = 0;
  test::Sweep sweep;
  for (const char* mask : {"causal", "full", "window:2", "window:4", "prefix:3"}) {
    for (const auto& lengths :
         std::vector<std::vector<int64_t>>{{8}, {7, 2}, {5, 3, 1}, {4, 4}, {6, 1, 1, 1}, {3, 3, 3}}) {
      for (const int32_t ranks : {2, 3}) {
        for (const double pair_seconds : {0.0, 0.3, 5.0}) {
          for (const BalanceLimits& limits :
               {BalanceLimits{1.2, 1.4}, BalanceLimits{1.5, 3.0}, BalanceLimits{1.05, 2.0}}) {
            if (!sweep.takes_next()) continue;
            const Request request = request_of(lengths, mask, ranks, pair_seconds);
            const int64_t fewest = fewest_by_search(request, limits);
            if (fewest < 0) continue;
            const Bound bound = lower_bound(request, limits);
            EXPECT_LE(bound.key_tokens, fewest) << mask << " lengths " << ::testing::PrintToString(lengths) << " ranks "
                                                << ranks << " pair " << pair_seconds;
            ++searched;
            met += bound.key_tokens == fewest ? 1 : 0;
            cut += bound.key_tokens > 0 ? 1 : 0;
          }
        }
      }
    }
  }
  // Not an empty promise: it is met by most of the batches, and above zero for many.
  EXPECT_GT(met * 2, searched);
  EXPECT_GT(cut * 4, searched);
}

// One document on several ranks has to be cut. Of windows and prefixes it was said that none has to.
TEST(Bound, OneDocumentOnSeveralRanksIsCut) {
  for (const char* mask : {"causal", "full", "window:2", "window:1000", "window:100000", "prefix:0", "prefix:7"}) {
    for (const int32_t ranks : {2, 3, 8}) {
      for (const double pair_seconds : {0.0, 1e-3}) {
        const Request request = request_of({10'000}, mask, ranks, pair_seconds);
        const Bound bound = lower_bound(request);
        EXPECT_NE(bound.binding, Binding::nothing) << mask << " on " << ranks;
        EXPECT_GT(bound.key_tokens, 0) << mask << " on " << ranks;
        EXPECT_LE(bound.key_tokens, (ranks - 1) * 10'000) << mask << " on " << ranks;
      }
    }
  }
  // With windows of one key it is cut, and nothing travels.
  const Bound alone = lower_bound(request_of({10'000}, "window:1", 4, 1e-3));
  EXPECT_NE(alone.binding, Binding::nothing);
  EXPECT_EQ(alone.key_tokens, 0);
  EXPECT_EQ(lower_bound(request_of({10'000}, "window:1000", 1, 1e-3)).binding, Binding::nothing);
}

// Fewer documents than ranks: some document is cut.
TEST(Bound, FewerDocumentsThanRanks) {
  for (const char* mask : {"causal", "full", "window:5", "prefix:5"}) {
    for (const int32_t ranks : {3, 4, 7}) {
      const Bound bound =
          lower_bound(request_of(std::vector<int64_t>(static_cast<size_t>(ranks - 1), 60), mask, ranks, 0.1));
      EXPECT_NE(bound.binding, Binding::nothing) << mask << " on " << ranks;
    }
  }
}

// Two documents that must be cut cannot both have all the slack in tokens: that alone would allow one token less.
TEST(Bound, SharesTheSlackAmongDocuments) {
  const BalanceLimits limits{1.05, 1.2};
  for (const int32_t ranks : {3, 4}) {
    const Request request = request_of({5, 4, 1}, "causal", ranks, 3.0);
    EXPECT_EQ(lower_bound(request, limits).key_tokens, fewest_by_search(request, limits)) << ranks << " ranks";
  }
}

TEST(Bound, SaysWhatBinds) {
  const BalanceLimits limits{1.01, 1.1};
  std::vector<int64_t> even(64, 100);
  EXPECT_EQ(lower_bound(request_of(even, "causal", 8, 1e-3), limits).binding, Binding::nothing);
  // One document alone: its work fills the ranks whatever the tokens.
  EXPECT_EQ(lower_bound(request_of({4096}, "causal", 2, 1.0), BalanceLimits{1.01, 2.0}).binding, Binding::work);
  // A dense document beside many light tokens: the ranks that hold its end have too few tokens.
  std::vector<int64_t> mixed(2000, 2);
  mixed.push_back(1000);
  const Bound bound = lower_bound(request_of(mixed, "causal", 8, 1e-3), BalanceLimits{1.01, 1.01});
  EXPECT_EQ(bound.binding, Binding::tokens);
  EXPECT_GT(bound.key_tokens, 0);
}

}  // namespace
}  // namespace evenspan::plan
