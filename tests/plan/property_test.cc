// Random batches, machines, shapes and options: every strategy's plan is proven, and sends what its formula says.
#include <cstdlib>
#include <sstream>

#include "evenspan/core/error.h"
#include "gtest/gtest.h"
#include "plan/strategy/strategy.h"
#include "rapidcheck.h"
#include "support/plan_by_hand.h"
#include "support/random_draft.h"

namespace evenspan {
namespace {

using namespace plan;  // NOLINT

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kNumPlans = 1000;  // some ten times slower
#else
constexpr int kNumPlans = 10000;
#endif

// Uniform from the first plan on; RapidCheck's own sizes begin near nothing.
int64_t pick(int64_t low, int64_t high) {
  return *rc::gen::resize(rc::kNominalSize, rc::gen::inRange<int64_t>(low, high + 1));
}

template <class T>
T pick_from(const std::vector<T>& list) {
  return list[static_cast<size_t>(pick(0, static_cast<int64_t>(list.size()) - 1))];
}

// Long-tailed: most are short, some have thousands of tokens.
Document pick_document() {
  Document document;
  document.length = pick(1, pick_from<int64_t>({1, 8, 40, 40, 300, 300, 4000}));
  document.mask.kind =
      pick_from<MaskKind>({MaskKind::causal, MaskKind::causal, MaskKind::full, MaskKind::window, MaskKind::prefix});
  const int64_t most = document.length + 3;  // beyond the document as well
  if (document.mask.kind == MaskKind::window) document.mask.extent = pick(1, most);
  if (document.mask.kind == MaskKind::prefix) document.mask.extent = pick(0, most);
  return document;
}

Request pick_request() {
  Request request;
  std::vector<Document> documents;
  for (int64_t count = pick(1, pick_from<int64_t>({1, 4, 20})); count > 0; --count)
    documents.push_back(pick_document());
  if (pick(0, 1) == 0) {
    for (Document& document : documents) document.mask = Mask{};
  }
  request.documents = Documents(std::move(documents));
  const auto [heads, kv_heads] = pick_from<std::pair<int32_t, int32_t>>(
      {{1, 1}, {4, 4}, {8, 2}, {7, 1}, {7, 7}, {6, 3}, {8, 1}, {12, 4}, {3, 3}, {2, 1}});
  request.shape =
      AttentionShape{heads, kv_heads, pick_from<int32_t>({1, 4, 8, 80}),
                     pick_from<ElementType>({ElementType::bf16, ElementType::f16, ElementType::f32, ElementType::f64})};
  const auto num_ranks = static_cast<int32_t>(pick(1, 8));
  request.topology = make_topology(num_ranks, static_cast<int32_t>(pick(0, num_ranks)));
  if (pick(0, 3) == 0) {  // known links: remote keys in rounds
    for (Level& level : request.topology.levels) level.bytes_per_second = 1e6;
    request.cost.round_seconds = pick_from<double>({1e-3, 1e-2});
  }
  request.options.strategy =
      std::string(strategies()[static_cast<size_t>(pick(0, static_cast<int64_t>(strategies().size()) - 1))].name);
  request.options.token_slack = pick_from<double>({0, 0.05, 0.1, 0.5, 10});
  request.options.stripe_tokens = pick_from<int64_t>({32, 128, 1000});
  std::vector<int32_t> groups{0};
  for (int32_t group = 1; group <= num_ranks; ++group) {
    if (num_ranks % group == 0) groups.push_back(group);
  }
  request.options.ranks_per_group = pick_from(groups);
  if (pick(0, 4) == 0) request.options.memory_budget_bytes = pick(1, pick_from<int64_t>({1 << 14, 1 << 20, 1 << 24}));
  return request;
}

std::string describe(const Request& request) {
  std::ostringstream text;
  text << request.options.strategy << " on " << request.num_ranks() << " ranks, " << request.topology.ranks_per_node()
       << " a node, groups of " << request.options.ranks_per_group << ", slack " << request.options.token_slack
       << ", stripes of " << request.options.stripe_tokens << ", budget " << request.options.memory_budget_bytes << "; "
       << request.shape.num_heads << " heads, " << request.shape.num_kv_heads << " kv heads of "
       << request.shape.head_dim << " " << to_string(request.shape.element) << "; documents";
  for (const Document& document : request.documents.all())
    text << " " << document.length << ":" << to_string(document.mask);
  return text.str();
}

void check_plan(const Request& request) {
  const auto plan = make_plan(request);
  const LoweredPlan lowered = lower_all(*plan);
  const std::string findings = test::to_text(verify(lowered));
  if (!findings.empty()) RC_FAIL(findings + "in " + describe(request));
  int64_t sent = 0;
  for (const RankProgram& programs : lowered.programs)
    sent += sent_bytes(programs.phase(PhaseKind::forward), request.shape);
  RC_ASSERT(sent == find_strategy(request.options.strategy).traffic(request, plan->placement).sent_bytes);
  RC_ASSERT(sent == measure(*plan).sent_bytes_total);
}

TEST(Property, RandomPlansAreProven) {
  // The same plans in every run; RC_PARAMS="seed=..." tries others.
  rc::detail::TestParams params = rc::detail::configuration().testParams;
  if (std::getenv("RC_PARAMS") == nullptr) params.seed = 2024;
  params.maxSuccess = kNumPlans + kNumPlans / 4;  // some budgets are too small for any plan
  int num_proven = 0;
  const auto result = rc::detail::checkTestable(
      [&num_proven] {
        const Request request = pick_request();
        try {
          check_plan(request);
          ++num_proven;
        } catch (const Error& error) {
          // "No plan fits" is an answer, but only to a budget.
          if (error.kind() == ErrorKind::resource && request.options.memory_budget_bytes > 0) return;
          RC_FAIL(std::string("refused ") + describe(request) + ": " + error.what());
        } catch (const std::exception& error) {  // RapidCheck throws its own type for failed assertions
          RC_FAIL(std::string("threw ") + error.what() + " for " + describe(request));
        }
      },
      rc::detail::TestMetadata(), params);
  std::ostringstream text;
  rc::detail::printResultMessage(result, text);
  EXPECT_TRUE(result.is<rc::detail::SuccessResult>()) << text.str();
  EXPECT_GE(num_proven, kNumPlans);
}

// Partial outputs of any shape: rows with several homes, parts of one row on many ranks and in many rounds.
TEST(Property, RandomDraftsAreProven) {
  int num_partials = 0, num_own = 0;
  for (uint64_t seed = 0; seed < kNumPlans / 5; ++seed) {
    test::RandomDraft random(seed);
    const Request request = random.request(static_cast<ElementType>(seed % 4));
    const auto plan = make_plan(request, random.draft(request));
    const LoweredPlan lowered = lower_all(*plan);
    ASSERT_EQ(test::to_text(verify(lowered)), "") << "seed " << seed << ": " << describe(request);
    int64_t sent = 0;
    for (const RankProgram& programs : lowered.programs)
      sent += sent_bytes(programs.phase(PhaseKind::forward), request.shape);
    ASSERT_EQ(sent, measure(*plan).sent_bytes_total) << "seed " << seed;
    num_partials += plan->partials.empty() ? 0 : 1;
    num_own +=
        std::any_of(plan->partials.begin(), plan->partials.end(), [](const Partial& p) { return p.from == p.to; });
  }
  EXPECT_GE(num_partials, kNumPlans / 10);
  EXPECT_GE(num_own, kNumPlans / 20);
}

}  // namespace
}  // namespace evenspan
