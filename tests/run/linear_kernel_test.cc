// The chunked kernel against the recurrence token by token in float64: outputs, summaries and gradients of every
// variant, type and length, with and without states that come in.
#include "evenspan/run/linear_kernel.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include "evenspan/core/error.h"
#include "gtest/gtest.h"
#include "support/sweep.h"
#include "support/torch/naive_recurrence.h"

namespace evenspan::run {
namespace {

struct Variant {
  const char* name;
  int64_t gate_dims;  // 0: none; 1: [heads]; 2: [rows, heads]; 3: [rows, heads, key_dim]
  bool delta;
};
constexpr Variant kVariants[] = {{"plain", 0, false},       {"fixed", 1, false},        {"scalar", 2, false},
                                 {"diagonal", 3, false},    {"delta", 0, true},         {"fixed delta", 1, true},
                                 {"scalar delta", 2, true}, {"diagonal delta", 3, true}};

constexpr int64_t kKernelHeads = 2, kKernelKeyDim = 6, kKernelValueDim = 5;
constexpr double kUntouched = 77;

bool wide(at::ScalarType type) { return type == at::kDouble; }
at::ScalarType accumulation(at::ScalarType type) { return wide(type) ? at::kDouble : at::kFloat; }

// What a pass is given for its segments, and, in float64, what must come out.
struct Problem {
  std::vector<RowRange> segments;
  LinearOperands operands;
  at::Tensor grad_output;
  std::vector<at::Tensor> states, grad_states;  // of each segment; in, and of its end
};

at::Tensor gates(const Variant& variant, int64_t rows) {
  const std::vector<int64_t> sizes = {rows, kKernelHeads, kKernelKeyDim};
  if (variant.gate_dims == 0) return {};
  return -at::rand(
      variant.gate_dims == 1 ? at::IntArrayRef({kKernelHeads}) : at::IntArrayRef(sizes).slice(0, variant.gate_dims),
      at::kDouble);
}

// Segments of these lengths with a row of no segment before each.
Problem problem(const Variant& variant, const std::vector<int64_t>& lengths, at::ScalarType type,
                const at::Tensor& gate = {}) {
  at::manual_seed(5);
  Problem p;
  int64_t rows = 0;
  for (const int64_t length : lengths) {
    p.segments.push_back({rows + 1, rows + 1 + length});
    rows += 1 + length;
  }
  const auto random = [&](int64_t dim) { return at::randn({rows, kKernelHeads, dim}, at::kDouble); };
  at::Tensor key = random(kKernelKeyDim);
  if (variant.delta) key = key / key.norm(2, -1, true);
  p.operands.query = random(kKernelKeyDim).to(type);
  p.operands.key = key.to(type);
  p.operands.value = random(kKernelValueDim).to(type);
  const at::Tensor own_gate = gate.defined() ? gate : gates(variant, rows);
  if (own_gate.defined()) p.operands.gate = own_gate.to(accumulation(type));
  if (variant.delta) p.operands.beta = at::rand({rows, kKernelHeads}, at::kDouble).to(accumulation(type));
  p.operands.scale = 0.4;
  p.grad_output = random(kKernelValueDim).to(type);
  for (size_t s = 0; s < lengths.size(); ++s) {
    for (auto* states : {&p.states, &p.grad_states}) {
      states->push_back(at::randn({kKernelHeads, kKernelKeyDim, kKernelValueDim}, at::kDouble).to(accumulation(type)));
    }
  }
  return p;
}

at::Tensor as_double(const at::Tensor& x) { return x.defined() ? x.to(at::kDouble) : x; }

// A gate that all tokens share as one of each row.
LinearOperands rows_of(const LinearOperands& all, const RowRange& rows) {
  const auto part = [&](const at::Tensor& x) {
    return x.defined() && x.dim() > 1 ? as_double(x).narrow(0, rows.begin, rows.size()) : as_double(x);
  };
  LinearOperands own{part(all.query), part(all.key), part(all.value), part(all.gate), part(all.beta), all.scale};
  if (own.gate.defined() && own.gate.dim() == 1) own.gate = own.gate.expand({rows.size(), kKernelHeads});
  return own;
}

std::pair<at::Tensor, at::Tensor> recurrence(const LinearOperands& x, const at::Tensor& state) {
  return test::naive_recurrence(x.query, x.key, x.value, x.gate, x.beta, x.scale, state);
}

struct Gradients {
  LinearGradients operands;
  at::Tensor state;
};

Gradients recurrence_gradients(const LinearOperands& x, const at::Tensor& state, const at::Tensor& grad_output,
                               const at::Tensor& grad_state) {
  std::vector<at::Tensor> leaves;
  const auto leaf = [&](const at::Tensor& t) {
    if (t.defined()) leaves.push_back(t.detach().clone().requires_grad_());
    return t.defined() ? leaves.back() : t;
  };
  const LinearOperands own{leaf(x.query), leaf(x.key), leaf(x.value), leaf(x.gate), leaf(x.beta), x.scale};
  const auto [output, final_state] = recurrence(own, leaf(state));
  auto grads = torch::autograd::grad({output, final_state}, leaves, {grad_output, grad_state});
  size_t next = 0;
  const auto take = [&](const at::Tensor& t) { return t.defined() ? grads[next++] : at::Tensor(); };
  Gradients result;
  result.operands = {take(x.query), take(x.key), take(x.value), take(x.gate), take(x.beta)};
  result.state = grads[next];
  return result;
}

// Some hundred terms of either sign are summed, each with decays that are good to 16 units in the last place (in
// float64, to what sums of gates down to -1000 a row leave of them), and an inverse adds what its condition costs.
// Results of 16 bits are rounded once more, to half a unit.
double tolerance(at::ScalarType type) { return wide(type) ? 1e-11 : 3e-6; }
double rounding(at::ScalarType type) {
  return type == at::kBFloat16 ? 1.0 / 256 : type == at::kHalf ? 1.0 / 2048 : 0.0;
}

// `least_scale`: of what was summed, where that is more than the result.
void expect_close(const at::Tensor& actual, const at::Tensor& expected, at::ScalarType type, const std::string& what,
                  double least_scale = 1) {
  ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
  const double scale = std::max(least_scale, expected.abs().max().item<double>());
  const at::Tensor error = (as_double(actual) - expected).abs() - expected.abs() * rounding(actual.scalar_type());
  const double worst = error.max().item<double>();
  EXPECT_TRUE(worst <= tolerance(type) * scale) << what << ": off by " << worst << " at a scale of " << scale;
}

// One call with some segments pending and the others complete.
struct Halves {
  std::vector<char> pending;
  std::vector<RowRange> segments;  // that are pending
  std::vector<at::Tensor> states, grad_states;
};

Halves halves(const Problem& p, bool pending) {
  Halves h;
  for (size_t s = 0; s < p.segments.size(); ++s) {
    h.pending.push_back(pending && s % 3 != 1 ? 1 : 0);
    if (h.pending.back() == 0) continue;
    h.segments.push_back(p.segments[s]);
    h.states.push_back(p.states[s]);
    h.grad_states.push_back(p.grad_states[s]);
  }
  return h;
}

void check_forward(const Problem& p, bool pending, const LinearKernel& kernel, const std::string& name) {
  const at::ScalarType type = p.operands.value.scalar_type();
  const at::Tensor output = at::full_like(p.operands.value, kUntouched);
  const auto pass = kernel.forward(p.operands, output);
  const Halves h = halves(p, pending);
  std::vector<LinearSummary> summaries;
  for (size_t s = 0; s < h.segments.size(); ++s) {
    const auto empty = [&](at::IntArrayRef sizes) { return at::empty(sizes, p.states[0].options()); };
    LinearSummary summary{empty({kKernelHeads, kKernelKeyDim, kKernelValueDim}), {}};
    const at::Tensor& gate = p.operands.gate;
    if (p.operands.beta.defined()) {
      summary.transition = empty({kKernelHeads, kKernelKeyDim, kKernelKeyDim});
    } else if (gate.defined() && gate.dim() > 1) {
      summary.transition = empty({kKernelHeads, gate.dim() == 2 ? 1 : kKernelKeyDim});
    }
    summaries.push_back(summary);
  }
  if (!h.segments.empty()) pass->summarize(h.segments, summaries);
  pass->intra(p.segments, h.pending);
  if (!h.segments.empty()) pass->apply(h.segments, h.states);

  at::Tensor rest = at::ones({output.size(0)}, at::kBool);
  for (size_t s = 0, next = 0; s < p.segments.size(); ++s) {
    const RowRange& rows = p.segments[s];
    const LinearOperands own = rows_of(p.operands, rows);
    const at::Tensor state = h.pending[s] != 0 ? as_double(p.states[s]) : at::Tensor();
    const auto [expected, final_state] = recurrence(own, state);
    const std::string at = name + ", segment " + std::to_string(s);
    expect_close(output.narrow(0, rows.begin, rows.size()), expected, type, at + " output");
    rest.narrow(0, rows.begin, rows.size()).zero_();
    if (h.pending[s] == 0) continue;
    const LinearSummary& summary = summaries[next++];
    const at::Tensor from_zero = recurrence(own, {}).second;
    expect_close(summary.state, from_zero, type, at + " E");
    at::Tensor carried;
    if (own.beta.defined()) {
      carried = at::matmul(as_double(summary.transition), state);
    } else if (summary.transition.defined()) {
      carried = as_double(summary.transition).exp().unsqueeze(2) * state;
    } else {
      carried = own.gate.defined() ? own.gate.sum(0).exp().view({kKernelHeads, 1, 1}) * state : state;
    }
    expect_close(carried, final_state - from_zero, type, at + " M");
  }
  EXPECT_TRUE(output.index({rest}).eq(kUntouched).all().item<bool>()) << name << " wrote to rows of no segment";
}

LinearGradients results_for(const LinearOperands& x) {
  const auto like = [](const at::Tensor& t) { return t.defined() ? at::full_like(t, kUntouched) : t; };
  return {like(x.query), like(x.key), like(x.value), like(x.gate), like(x.beta)};
}

void check_backward(const Problem& p, bool pending, const LinearKernel& kernel, const std::string& name) {
  const at::ScalarType type = p.operands.value.scalar_type();
  const LinearGradients results = results_for(p.operands);
  const auto pass = kernel.backward(p.operands, p.grad_output, results);
  const Halves h = halves(p, pending);
  std::vector<at::Tensor> begins;
  for (const at::Tensor& state : h.states) begins.push_back(at::empty_like(state));
  if (!h.segments.empty()) pass->summarize(h.segments, begins);
  std::vector<at::Tensor> states(p.segments.size());
  for (size_t s = 0; s < states.size(); ++s) {
    if (h.pending[s] != 0) states[s] = p.states[s];
  }
  pass->intra(p.segments, states, h.pending);
  if (!h.segments.empty()) pass->apply(h.segments, h.states, h.grad_states);
  pass->finish();

  at::Tensor rest = at::ones({p.grad_output.size(0)}, at::kBool);
  std::vector<at::Tensor> gate_rows;  // of a gate that all tokens share
  for (size_t s = 0, next = 0; s < p.segments.size(); ++s) {
    const RowRange& rows = p.segments[s];
    const LinearOperands own = rows_of(p.operands, rows);
    const at::Tensor grad_output = as_double(p.grad_output).narrow(0, rows.begin, rows.size());
    const at::Tensor zero = at::zeros({kKernelHeads, kKernelKeyDim, kKernelValueDim}, at::kDouble);
    const bool in = h.pending[s] != 0;
    const Gradients expected = recurrence_gradients(own, in ? as_double(p.states[s]) : zero, grad_output,
                                                    in ? as_double(p.grad_states[s]) : zero);
    const std::string at = name + ", segment " + std::to_string(s) + " gradient of ";
    const auto compare = [&](const at::Tensor& actual, const at::Tensor& wanted, const char* what) {
      if (wanted.defined()) expect_close(actual.narrow(0, rows.begin, rows.size()), wanted, type, at + what);
    };
    compare(results.query, expected.operands.query, "query");
    compare(results.key, expected.operands.key, "key");
    compare(results.value, expected.operands.value, "value");
    compare(results.beta, expected.operands.beta, "beta");
    if (p.operands.gate.defined() && p.operands.gate.dim() == 1) {
      gate_rows.push_back(expected.operands.gate);
    } else {
      compare(results.gate, expected.operands.gate, "gate");
    }
    rest.narrow(0, rows.begin, rows.size()).zero_();
    if (!in) continue;
    const Gradients alone = recurrence_gradients(own, zero, grad_output, zero);
    expect_close(begins[next++], alone.state, type, at + "state");
  }
  if (!gate_rows.empty()) {
    const at::Tensor all = at::cat(gate_rows);
    expect_close(results.gate, all.sum(0), type, name + " gradient of gate", all.abs().sum().item<double>());
  }
  for (const at::Tensor& grad : {results.query, results.key, results.value, results.beta}) {
    if (!grad.defined()) continue;
    EXPECT_TRUE(grad.index({rest}).eq(kUntouched).all().item<bool>()) << name << " wrote to rows of no segment";
  }
}

void check_kernel(const Problem& p, const LinearKernel& kernel, const std::string& name) {
  for (const bool pending : {false, true}) {
    const std::string own = name + (pending ? " with states" : "");
    check_forward(p, pending, kernel, own);
    check_backward(p, pending, kernel, own);
  }
}

// On one thread: waiting for each other costs more than there is to do.
class LinearKernelTest : public testing::Test {
 protected:
  LinearKernelTest() { at::set_num_threads(1); }
  ~LinearKernelTest() override { at::set_num_threads(threads_); }

 private:
  int threads_ = at::get_num_threads();
};

const std::vector<std::vector<int64_t>> kLengths = {
    {1}, {2}, {63}, {64}, {65}, {200}, {3, 70, 1, 17, 130, 5, 16, 2, 33}};

TEST_F(LinearKernelTest, IsTheRecurrence) {
  test::Sweep sweep;
  const auto kernel = make_chunked_kernel();
  for (const Variant& variant : kVariants) {
    for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
      for (const auto& lengths : kLengths) {
        if (!sweep.takes_next()) continue;
        check_kernel(problem(variant, lengths, type), *kernel,
                     join_text(variant.name, " ", type, " ", lengths.size(), " of ", lengths[0]));
      }
    }
  }
}

TEST_F(LinearKernelTest, TakesSixteenBits) {
  const auto kernel = make_chunked_kernel();
  for (const Variant& variant : kVariants) {
    for (const at::ScalarType type : {at::kBFloat16, at::kHalf}) {
      check_kernel(problem(variant, {3, 70, 1, 17}, type), *kernel, join_text(variant.name, " ", type));
    }
  }
}

TEST_F(LinearKernelTest, TakesAnyChunk) {
  for (const int64_t chunk_tokens : {1, 5, 100}) {
    const auto kernel = make_chunked_kernel(chunk_tokens);
    for (const Variant& variant : kVariants) {
      check_kernel(problem(variant, {40, 3}, at::kDouble), *kernel,
                   join_text(variant.name, " in chunks of ", chunk_tokens));
    }
  }
}

// A block has at most 16 chunks of the two heads for each thread; what a sweep keeps of some is less than the operands.
TEST_F(LinearKernelTest, CrossesBlocks) {
  const auto kernel = make_chunked_kernel(2);
  for (const Variant& variant : kVariants) {
    for (const at::ScalarType type : {at::kDouble, at::kBFloat16}) {
      check_kernel(problem(variant, {40, 300, 170, 3, 9}, type), *kernel,
                   join_text(variant.name, " ", type, " in many blocks"));
    }
  }
}

// Short segments share blocks padded to their own longest, with and without states, some beside the rest of a long one.
TEST_F(LinearKernelTest, ManyShortSegments) {
  std::vector<int64_t> lengths = {70, 600};
  for (int64_t i = 0; i < 100; ++i) lengths.push_back(1 + i * i % 9);
  const auto kernel = make_chunked_kernel();
  for (const Variant& variant : kVariants) {
    check_kernel(problem(variant, lengths, at::kDouble), *kernel, join_text(variant.name, " of many short segments"));
  }
}

// Neither exponentials of sums that overflow nor differences of sums that have lost their digits.
TEST_F(LinearKernelTest, GatesMayBeExtreme) {
  test::Sweep sweep;
  const auto kernel = make_chunked_kernel();
  const std::vector<int64_t> lengths = {150, 20};
  const int64_t rows = 172;
  for (const Variant& variant : kVariants) {
    if (variant.gate_dims < 2) continue;
    const at::Tensor mild = gates(variant, rows);
    const at::Tensor choice = at::randint(0, 8, mild.sizes(), mild.options());
    const at::Tensor rare = at::where(choice.eq(0), -1e30, -0.01 * at::rand_like(mild));
    const at::Tensor mixed = at::where(choice.le(2), -0.0, at::where(choice.eq(3), -300.0, -3 * mild.neg()));
    const std::pair<const char*, at::Tensor> cases[] = {{"zero", at::zeros_like(mild)},
                                                        {"-1", at::full_like(mild, -1.0)},
                                                        {"-20", at::full_like(mild, -20.0)},
                                                        {"-1e30", at::full_like(mild, -1e30)},
                                                        {"-inf", at::full_like(mild, -INFINITY)},
                                                        {"resets", rare},
                                                        {"mixed", mixed}};
    for (const auto& [name, gate] : cases) {
      for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
        if (!sweep.takes_next()) continue;
        check_kernel(problem(variant, lengths, type, gate), *kernel,
                     join_text(variant.name, " ", type, " gates ", name));
      }
    }
  }
}

// Each head (and key dimension) has a gate of its own strength, from one that forgets nothing to one that leaves 1e-35,
// and so has its gradient: what a weak gate's rows lose by rounding is not in it, nor what its own keys bring to the
// final state behind it. A gradient's terms have either sign and may be ten times as large as it.
TEST_F(LinearKernelTest, GradientsOfStrongGatesAreGoodToTheirOwnSize) {
  const auto kernel = make_chunked_kernel();
  const std::vector<int64_t> lengths = {161, 40};
  const double strengths[] = {-0.01, -1, -5, -20, -40, -60, -80};
  for (const Variant& variant : kVariants) {
    if (variant.gate_dims == 0) continue;
    for (size_t first = 0; first < std::size(strengths); ++first) {
      at::Tensor gate = gates(variant, 203).zero_();
      const at::Tensor columns = gate.view({-1, variant.gate_dims == 3 ? kKernelHeads * kKernelKeyDim : kKernelHeads});
      for (int64_t c = 0; c < columns.size(1); ++c) {
        columns.select(1, c).fill_(strengths[(first + static_cast<size_t>(c)) % std::size(strengths)]);
      }
      const Problem p = problem(variant, lengths, at::kFloat, gate);
      const LinearGradients results = results_for(p.operands);
      const auto pass = kernel->backward(p.operands, p.grad_output, results);
      pass->intra(p.segments, p.states, {1, 1});
      pass->apply(p.segments, p.states, p.grad_states);
      pass->finish();
      std::vector<at::Tensor> actual, expected;
      for (size_t s = 0; s < lengths.size(); ++s) {
        const RowRange& rows = p.segments[s];
        const auto part = [&](const at::Tensor& x) { return as_double(x).narrow(0, rows.begin, rows.size()); };
        expected.push_back(recurrence_gradients(rows_of(p.operands, rows), as_double(p.states[s]), part(p.grad_output),
                                                as_double(p.grad_states[s]))
                               .operands.gate);
        if (variant.gate_dims > 1) actual.push_back(part(results.gate));
      }
      const at::Tensor wanted = at::cat(expected);
      const bool fixed = variant.gate_dims == 1;
      const at::Tensor error =
          fixed ? (as_double(results.gate) - wanted.sum(0)).abs() : (at::cat(actual) - wanted).abs().amax(0);
      const at::Tensor size = fixed ? wanted.abs().sum(0) : wanted.abs().amax(0);
      const double worst = (error / size).max().item<double>();
      EXPECT_LE(worst, 10 * tolerance(at::kFloat)) << variant.name << ", from " << strengths[first];
    }
  }
}

TEST_F(LinearKernelTest, UsesThreads) {
  at::set_num_threads(3);
  const auto kernel = make_chunked_kernel(256);
  for (const Variant& variant : kVariants) {
    check_kernel(problem(variant, {600, 300, 30}, at::kDouble), *kernel, join_text(variant.name, " on threads"));
  }
}

// A model's views: heads of one projection side by side.
TEST_F(LinearKernelTest, TakesViews) {
  const auto kernel = make_chunked_kernel();
  for (const Variant& variant : kVariants) {
    Problem p = problem(variant, {30, 70}, at::kDouble);
    const auto view = [](const at::Tensor& x) {
      return at::cat({x, at::full_like(x, NAN)}, 2).narrow(2, 0, x.size(2));
    };
    p.operands.query = view(p.operands.query);
    p.operands.key = view(p.operands.key);
    p.operands.value = view(p.operands.value);
    p.grad_output = view(p.grad_output);
    check_kernel(p, *kernel, join_text(variant.name, " views"));
  }
}

TEST_F(LinearKernelTest, ChunksHaveTokens) { EXPECT_THROW(make_chunked_kernel(0), Error); }

}  // namespace
}  // namespace evenspan::run
