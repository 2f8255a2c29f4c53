// Every strategy on thread ranks against attention by the definition in float64: outputs and all gradients.
#include <gtest/gtest.h>

#include <algorithm>
#include <mutex>

#include "evenspan/core/error.h"
#include "plan/strategy/strategy.h"
#include "support/random_draft.h"
#include "support/reference.h"
#include "support/sweep.h"

namespace evenspan {
namespace {

struct Batch {
  const char* name;
  std::vector<int64_t> lengths;
};

const std::vector<Batch>& batches() {
  static const std::vector<Batch> batches = {
      {"one document", {61}},
      {"even", {16, 16, 16, 16}},
      {"long-tailed", {90, 31, 9, 4, 2, 1, 1}},
      {"many of length 1", std::vector<int64_t>(11, 1)},
      {"prime lengths", {7, 13, 29, 11}},
      {"more ranks than documents", {5, 3}},
      {"ranks without tokens", {2}},
  };
  return batches;
}

struct Heads {
  int32_t heads, kv_heads;
};
const std::vector<Heads>& all_heads() {
  static const std::vector<Heads> all = {{4, 4}, {8, 2}, {7, 7}, {6, 1}};
  return all;
}

const std::vector<plan::Mask>& masks() {
  static const std::vector<plan::Mask> masks = {
      {plan::MaskKind::causal, 0}, {plan::MaskKind::full, 0}, {plan::MaskKind::window, 6}, {plan::MaskKind::prefix, 5}};
  return masks;
}

plan::Request make_request(const std::string& strategy, int32_t ranks, const Batch& batch, Heads heads, plan::Mask mask,
                           plan::ElementType element) {
  plan::Request request;
  request.documents = plan::Documents(batch.lengths, mask);
  request.shape = plan::AttentionShape{heads.heads, heads.kv_heads, 8, element};
  request.topology = plan::make_topology(ranks, ranks > 2 ? 2 : 0);
  if (ranks == 4) {  // known links: remote keys come in several rounds
    for (plan::Level& level : request.topology.levels) level.bytes_per_second = 1e6;
    request.cost.round_seconds = 1e-6;
  }
  request.options.strategy = strategy;
  request.options.stripe_tokens = 4;
  return request;
}

std::string describe(const plan::Request& request, const Batch& batch) {
  return join_text(request.options.strategy, " on ", request.num_ranks(), " ranks, ", batch.name, ", ",
                   request.shape.num_heads, ":", request.shape.num_kv_heads, " heads, ",
                   plan::to_string(request.documents.all()[0].mask));
}

constexpr at::Tensor test::Outputs::*kParts[] = {&test::Outputs::output, &test::Outputs::grad_query,
                                                 &test::Outputs::grad_key, &test::Outputs::grad_value};

// Relative to the largest element of the part. One that vanishes, as the gradients of queries and keys of documents of
// length 1 do but for the rounding of equal products, is compared with what it is the difference of, as large as the
// rest.
double largest_error(const test::Outputs& got, const test::Outputs& want, bool relative) {
  double largest = 0, worst = 0;
  for (const auto part : kParts) largest = std::max(largest, (want.*part).abs().max().item<double>());
  for (const auto part : kParts) {
    const double own = (want.*part).abs().max().item<double>();
    const double scale = !relative ? 1 : own > 1e-10 * largest ? own : largest;
    worst = std::max(worst, ((got.*part).to(at::kDouble) - want.*part).abs().max().item<double>() / scale);
  }
  return worst;
}

class Parity : public testing::TestWithParam<std::string> {};

TEST_P(Parity, Float64EqualsTheDefinition) {
  test::Sweep sweep;
  for (const Batch& batch : batches()) {
    for (const Heads heads : all_heads()) {
      for (const plan::Mask mask : masks()) {
        if (!sweep.takes_next()) continue;
        const auto shape_of = [&](int32_t ranks) {
          return make_request(GetParam(), ranks, batch, heads, mask, plan::ElementType::f64);
        };
        const test::Inputs inputs = test::make_inputs(shape_of(1), 7, at::kDouble);
        const test::Outputs want = test::reference(shape_of(1), inputs);
        for (const int32_t ranks : {1, 2, 3, 4, 8}) {
          const auto request = shape_of(ranks);
          const test::Outputs got = test::run_plan(plan::make_plan(request), inputs);
          ASSERT_LE(largest_error(got, want, false), 1e-10) << describe(request, batch);
        }
      }
    }
  }
}

TEST_P(Parity, Float32IsCloseToTheDefinition) {
  for (const Batch& batch : batches()) {
    for (const Heads heads : all_heads()) {
      const auto one = make_request(GetParam(), 1, batch, heads, {}, plan::ElementType::f32);
      const test::Inputs inputs = test::make_inputs(one, 11, at::kFloat);
      const test::Outputs want = test::reference(one, inputs);
      for (const int32_t ranks : {1, 3, 4}) {
        const auto request = make_request(GetParam(), ranks, batch, heads, {}, plan::ElementType::f32);
        const test::Outputs got = test::run_plan(plan::make_plan(request), inputs);
        ASSERT_LE(largest_error(got, want, true), 2e-5) << describe(request, batch);
      }
    }
  }
}

// Keys and values reach some ranks by way of another rank of their node; they are kept for backward, or moved again.
TEST(Relays, EqualTheDefinition) {
  const Batch batch{"long-tailed", {120, 41, 9, 3, 1, 30}};
  for (const char* strategy : {"sequence_aware", "hierarchical", "mixed"}) {
    for (const plan::Mask mask : masks()) {
      for (const auto& [element, type, most] :
           {std::tuple{plan::ElementType::f64, at::kDouble, 1e-10}, {plan::ElementType::f32, at::kFloat, 2e-5}}) {
        plan::Request request = make_request(strategy, 8, batch, {4, 1}, mask, element);
        request.topology = plan::make_topology(8, 4);
        for (plan::Level& level : request.topology.levels) level.bytes_per_second = 1e3;
        if (request.options.strategy != "sequence_aware") request.options.ranks_per_group = 2;
        const test::Inputs inputs = test::make_inputs(request, 23, type);
        const test::Outputs want = test::reference(request, inputs);
        plan::Plan plan = *plan::make_plan(request);
        const bool relays = std::any_of(plan.needs.begin(), plan.needs.end(),
                                        [](const plan::Need& need) { return need.via != Rank(-1); });
        EXPECT_TRUE(relays || mask.kind != plan::MaskKind::causal) << describe(request, batch);
        for (const bool keep : {true, false}) {
          plan.keep_operands = keep;
          const test::Outputs got = test::run_plan(std::make_shared<plan::Plan>(plan), inputs);
          EXPECT_LE(largest_error(got, want, element == plan::ElementType::f32), most)
              << describe(request, batch) << (keep ? ", kept" : ", moved again");
        }
      }
    }
  }
}

double root_mean_square(const at::Tensor& x) { return x.to(at::kDouble).square().mean().sqrt().item<double>(); }

TEST_P(Parity, BFloat16IsAsGoodAsTheUnshardedKernel) {
  const Batch batch{"long-tailed", {300, 90, 31, 9, 4, 1}};
  for (const Heads heads : all_heads()) {
    const auto one = make_request("local", 1, batch, heads, {}, plan::ElementType::bf16);
    const test::Inputs inputs = test::make_inputs(one, 13, at::kBFloat16);
    const test::Outputs want = test::reference(one, inputs);
    const test::Outputs unsharded = test::run_plan(plan::make_plan(one), inputs);
    for (const int32_t ranks : {2, 3, 8}) {
      const auto request = make_request(GetParam(), ranks, batch, heads, {}, plan::ElementType::bf16);
      const test::Outputs got = test::run_plan(plan::make_plan(request), inputs);
      for (const auto part : kParts) {
        const double kernel = root_mean_square((unsharded.*part).to(at::kDouble) - want.*part);
        const double error = root_mean_square((got.*part).to(at::kDouble) - want.*part);
        ASSERT_LE(error, 2 * kernel + root_mean_square(want.*part) / 512) << describe(request, batch);
      }
    }
  }
}

TEST_P(Parity, TwoRunsHaveTheSameBits) {
  const Batch batch = batches()[2];
  const auto request = make_request(GetParam(), 3, batch, {8, 2}, {}, plan::ElementType::f32);
  const test::Inputs inputs = test::make_inputs(request, 17, at::kFloat);
  const auto plan = plan::make_plan(request);
  const test::Outputs first = test::run_plan(plan, inputs), second = test::run_plan(plan, inputs);
  for (const auto part : kParts) EXPECT_TRUE((first.*part).equal(second.*part));
}

TEST_P(Parity, NoDocumentSeesAnother) {
  const Batch batch = batches()[2];
  for (const int32_t ranks : {2, 4}) {
    const auto request = make_request(GetParam(), ranks, batch, {8, 2}, {}, plan::ElementType::f32);
    const auto plan = plan::make_plan(request);
    const test::Inputs inputs = test::make_inputs(request, 19, at::kFloat);
    const test::Outputs before = test::run_plan(plan, inputs);
    // Every token of the second document becomes another one.
    test::Inputs changed = test::make_inputs(request, 23, at::kFloat);
    const int64_t begin = batch.lengths[0], end = begin + batch.lengths[1];
    for (const auto input :
         {&test::Inputs::query, &test::Inputs::key, &test::Inputs::value, &test::Inputs::grad_output}) {
      at::Tensor mixed = (inputs.*input).clone();
      mixed.slice(0, begin, end).copy_((changed.*input).slice(0, begin, end));
      changed.*input = mixed;
    }
    const test::Outputs after = test::run_plan(plan, changed);
    for (const auto part : kParts) {
      EXPECT_TRUE((before.*part).slice(0, 0, begin).equal((after.*part).slice(0, 0, begin)));
      EXPECT_TRUE((before.*part).slice(0, end).equal((after.*part).slice(0, end)));
      EXPECT_FALSE((before.*part).slice(0, begin, end).equal((after.*part).slice(0, begin, end)));
    }
  }
}

TEST_P(Parity, RecordedBytesAreTheFormula) {
  test::Sweep sweep;
  for (const Batch& batch : batches()) {
    for (const Heads heads : all_heads()) {
      for (const int32_t ranks : {1, 2, 3, 4, 8}) {
        if (!sweep.takes_next()) continue;
        const auto request = make_request(GetParam(), ranks, batch, heads, {}, plan::ElementType::bf16);
        const auto plan = plan::make_plan(request);
        auto recorded = std::make_shared<comm::Recorded>();
        test::run_plan(plan, test::make_inputs(request, 29, at::kBFloat16), {test::test_device(), recorded});
        int64_t forward = 0, backward = 0;
        for (const auto& item : recorded->sends) {
          if (item.operation.starts_with("attention forward")) forward += item.num_bytes;
          if (item.operation.starts_with("attention backward")) backward += item.num_bytes;
        }
        const auto formula = plan::find_strategy(GetParam()).traffic(request, plan->placement);
        ASSERT_EQ(forward, formula.sent_bytes) << describe(request, batch);
        int64_t planned = 0;
        for (int32_t r = 0; r < ranks; ++r) {
          const auto program = plan::lower(*plan, Rank(r));
          planned += plan::sent_bytes(program.phase(plan::PhaseKind::backward), request.shape);
          const auto steps = std::count_if(
              program.phase(plan::PhaseKind::forward).operations.begin(),
              program.phase(plan::PhaseKind::forward).operations.end(),
              [](const auto& operation) { return std::holds_alternative<plan::Exchange>(operation.body); });
          ASSERT_LE(steps, formula.num_steps) << describe(request, batch);
        }
        ASSERT_EQ(backward, planned) << describe(request, batch);
      }
    }
  }
}

TEST(RandomDrafts, EqualTheDefinition) {
  for (uint64_t seed = 0; seed < 150; ++seed) {
    test::RandomDraft random(seed);
    const plan::Request request = random.request(plan::ElementType::f64);
    const test::Inputs inputs = test::make_inputs(request, 31, at::kDouble);
    const test::Outputs got = test::run_plan(plan::make_plan(request, random.draft(request)), inputs);
    ASSERT_LE(largest_error(got, test::reference(request, inputs), false), 1e-10) << "seed " << seed;
  }
}

std::vector<std::string> names() {
  std::vector<std::string> names;
  for (const auto& strategy : plan::strategies()) names.emplace_back(strategy.name);
  return names;
}

INSTANTIATE_TEST_SUITE_P(Strategies, Parity, testing::ValuesIn(names()),
                         [](const auto& parameter) { return parameter.param; });

}  // namespace
}  // namespace evenspan
