// Linear attention on thread ranks against the sequential recurrence on whole documents: outputs, final states and
// every gradient on every rank, for each variant, transport and number of ranks.
#include "evenspan/run/linear.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include <mutex>

#include "evenspan/core/error.h"
#include "evenspan/plan/linear.h"
#include "gtest/gtest.h"
#include "support/sweep.h"
#include "support/torch/documents_on_ranks.h"
#include "support/torch/naive_recurrence.h"

namespace evenspan {
namespace {

using run::LinearInput;
using run::LinearOptions;
using run::LinearResult;
using test::distance;
using test::home_rows;
using test::kBatches;
using test::kRanks;
using test::plan_for;

struct Variant {
  const char* name;
  int gate_dims;  // 0: none; 1: [heads]; 2: [rows, heads]; 3: [rows, heads, key_dim]
  bool delta;
};
const std::vector<Variant> kVariants = {{"plain", 0, false}, {"lightning", 1, false},      {"mamba2", 2, false},
                                        {"gla", 3, false},   {"deltanet", 0, true},        {"gated_deltanet", 2, true},
                                        {"kda", 3, true},    {"decayed_deltanet", 1, true}};

struct Tensors {
  at::Tensor query, key, value, gate, beta, initial, grad_output, grad_final;
};

constexpr int64_t kHeads = 3, kKeyDim = 4, kValueDim = 5;

Tensors random_tensors(const Variant& variant, const std::vector<int64_t>& lengths, bool states) {
  at::manual_seed(11);
  int64_t n = 0;
  for (const int64_t length : lengths) n += length;
  const auto f64 = at::TensorOptions().dtype(at::kDouble);
  const auto docs = static_cast<int64_t>(lengths.size());
  Tensors t;
  t.query = at::randn({n, kHeads, kKeyDim}, f64);
  t.key = at::randn({n, kHeads, kKeyDim}, f64);
  if (variant.delta) t.key = t.key / t.key.norm(2, -1, true);
  t.value = at::randn({n, kHeads, kValueDim}, f64);
  if (variant.gate_dims == 1) t.gate = -at::rand({kHeads}, f64);
  if (variant.gate_dims == 2) t.gate = -at::rand({n, kHeads}, f64);
  if (variant.gate_dims == 3) t.gate = -at::rand({n, kHeads, kKeyDim}, f64);
  if (variant.delta) t.beta = at::rand({n, kHeads}, f64);
  t.grad_output = at::randn({n, kHeads, kValueDim}, f64);
  if (states) {
    t.initial = at::randn({docs, kHeads, kKeyDim, kValueDim}, f64);
    t.grad_final = at::randn({docs, kHeads, kKeyDim, kValueDim}, f64);
  }
  return t;
}

// What a rank's inputs and results are compared with: whole tensors.
struct Expected {
  at::Tensor output, final_state;
  std::vector<at::Tensor> gradients;  // of query, key, value, gate, beta, initial; undefined where the input is
};

std::vector<at::Tensor> inputs_of(const Tensors& t) { return {t.query, t.key, t.value, t.gate, t.beta, t.initial}; }

std::vector<at::Tensor> leaves_of(const std::vector<at::Tensor>& inputs) {
  std::vector<at::Tensor> leaves;
  for (const at::Tensor& x : inputs) leaves.push_back(x.defined() ? x.detach().clone().requires_grad_() : x);
  return leaves;
}

std::vector<at::Tensor> gradients_of(const std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>& grads,
                                     const std::vector<at::Tensor>& leaves) {
  std::vector<at::Tensor> defined;
  for (const at::Tensor& x : leaves) {
    if (x.defined()) defined.push_back(x);
  }
  const auto found = torch::autograd::grad(outputs, defined, grads);
  std::vector<at::Tensor> all;
  size_t next = 0;
  for (const at::Tensor& x : leaves) all.push_back(x.defined() ? found[next++] : at::Tensor());
  return all;
}

Expected sequential(const Tensors& t, const std::vector<int64_t>& lengths, double scale) {
  const std::vector<at::Tensor> leaves = leaves_of(inputs_of(t));
  std::vector<at::Tensor> outputs, finals;
  int64_t at_row = 0;
  for (size_t d = 0; d < lengths.size(); ++d) {
    const auto rows = [&](const at::Tensor& x) {
      return x.defined() && x.dim() > 1 ? x.narrow(0, at_row, lengths[d]) : x;
    };
    const auto [output, final_state] =
        test::naive_recurrence(rows(leaves[0]), rows(leaves[1]), rows(leaves[2]), rows(leaves[3]), rows(leaves[4]),
                               scale, leaves[5].defined() ? leaves[5][static_cast<int64_t>(d)] : at::Tensor());
    outputs.push_back(output);
    finals.push_back(final_state);
    at_row += lengths[d];
  }
  Expected e{at::cat(outputs), at::stack(finals), {}};
  std::vector<at::Tensor> results{e.output}, grads{t.grad_output};
  if (t.grad_final.defined()) {
    results.push_back(e.final_state);
    grads.push_back(t.grad_final);
  }
  e.gradients = gradients_of(results, grads, leaves);
  return e;
}

struct How {
  std::string transport = "all_gather";
  std::string strategy = "ring";
  int32_t ranks = 3;
  int32_t ranks_per_node = 0;
  at::ScalarType type = at::kDouble;
  double tolerance = 1e-9;
  std::shared_ptr<const run::LinearKernel> kernel;
};

// One forward and backward on all ranks; every rank's results against the whole ones.
void check(const Variant& variant, const std::vector<int64_t>& lengths, bool states, const How& how) {
  SCOPED_TRACE(join_text(variant.name, ", ", how.transport, ", ", how.strategy, ", ", how.ranks,
                         " ranks, documents of ", at::IntArrayRef(lengths), states ? ", with states" : ""));
  const Tensors t = random_tensors(variant, lengths, states);
  const Expected expected = sequential(t, lengths, 1 / std::sqrt(static_cast<double>(kKeyDim)));
  const auto element = how.type == at::kDouble ? plan::ElementType::f64 : plan::ElementType::f32;
  const auto plan = plan_for(lengths, how.ranks, how.strategy, element, how.ranks_per_node);
  std::vector<at::Tensor> initial_sum(static_cast<size_t>(how.ranks)), gate_sum(static_cast<size_t>(how.ranks)),
      finals(static_cast<size_t>(how.ranks));
  std::vector<std::string> wrong(static_cast<size_t>(how.ranks));
  comm::run_threads(how.ranks, [&](const comm::Communicator& inner) {
    at::set_num_threads(1);
    const auto recorded = std::make_shared<comm::Recorded>();
    const run::Executable executable(plan, comm::make_recording_communicator(inner, recorded));
    const auto r = static_cast<size_t>(inner.rank().value);
    const at::Tensor rows = home_rows(*plan, inner.rank());
    const auto local = [&](const at::Tensor& x) {
      return (x.defined() && x.dim() > 1 && x.size(0) == t.query.size(0) ? x.index_select(0, rows) : x);
    };
    std::vector<at::Tensor> own;
    for (const at::Tensor& x : inputs_of(t))
      own.push_back(x.defined() && !x.is_same(t.initial) ? local(x).to(how.type) : x);
    own[5] = t.initial.defined() ? t.initial.to(how.type) : t.initial;
    const std::vector<at::Tensor> leaves = leaves_of(own);
    LinearOptions options;
    options.transport = how.transport;
    options.final_state = states;
    options.kernel = how.kernel;
    recorded->sends.clear();
    const LinearResult result =
        run::linear_attention({leaves[0], leaves[1], leaves[2], leaves[3], leaves[4], leaves[5]}, executable, options);
    std::vector<at::Tensor> outputs{result.output}, grads{local(t.grad_output).to(how.type)};
    if (states) {
      outputs.push_back(result.final_state);
      grads.push_back(t.grad_final.to(how.type));
    }
    const auto gradients = gradients_of(outputs, grads, leaves);
    const auto compare = [&](const char* name, const at::Tensor& a, const at::Tensor& b) {
      const double d = distance(a, b);
      if (!(d <= how.tolerance)) wrong[r] += join_text("rank ", r, ": ", name, " is ", d, " away; ");
    };
    compare("output", result.output.detach(), local(expected.output.detach()));
    const char* names[] = {"grad of query", "grad of key", "grad of value", "grad of gate", "grad of beta"};
    for (size_t i = 0; i < 5; ++i) {
      if (!gradients[i].defined() || gradients[i].dim() == 1) continue;
      compare(names[i], gradients[i], local(expected.gradients[i]));
    }
    gate_sum[r] = gradients[3];
    initial_sum[r] = gradients[5];
    if (states) finals[r] = result.final_state.detach();
  });
  for (const std::string& text : wrong) EXPECT_EQ(text, "");
  const auto sum = [](const std::vector<at::Tensor>& parts) {
    at::Tensor total = parts[0].clone();
    for (size_t i = 1; i < parts.size(); ++i) total += parts[i];
    return total;
  };
  if (variant.gate_dims == 1) {
    EXPECT_LE(distance(sum(gate_sum), expected.gradients[3]), how.tolerance);
  }
  if (states) {
    EXPECT_LE(distance(sum(initial_sum), expected.gradients[5]), how.tolerance);
    EXPECT_LE(distance(sum(finals), expected.final_state.detach()), how.tolerance);
  }
}

TEST(LinearAttention, EveryVariantTransportAndNumberOfRanks) {
  for (const Variant& variant : kVariants) {
    for (const auto& transport : plan::transports()) {
      for (const int32_t ranks : kRanks) {
        for (const auto& batch : kBatches) {
          How how;
          how.transport = std::string(transport.name);
          how.ranks = ranks;
          how.ranks_per_node = ranks > 3 ? 3 : 2;
          check(variant, batch, /*states=*/ranks % 2 == 1, how);
        }
      }
    }
  }
}

TEST(LinearAttention, EveryPlacement) {
  test::Sweep sweep;
  for (const char* strategy : {"zigzag", "striped", "all_gather", "sequence_aware", "mixed", "ulysses"}) {
    for (const auto& transport : plan::transports()) {
      if (!sweep.takes_next()) continue;
      How how;
      how.transport = std::string(transport.name);
      how.strategy = strategy;
      how.ranks = 4;
      how.ranks_per_node = 2;
      check(kVariants[3], {300, 40, 7, 1, 150}, false, how);
      check(kVariants[5], {300, 40, 7, 1, 150}, true, how);
    }
  }
}

// 1e-4 of the largest element: sums of 300 terms of size 1 in float32 have errors near sqrt(300) 2^-24 = 1e-6 of their
// size, and a chunk's inverse multiplies them by its condition, below 100.
TEST(LinearAttention, Float32) {
  test::Sweep sweep;
  for (const Variant& variant : kVariants) {
    for (const auto& transport : plan::transports()) {
      for (const int32_t ranks : kRanks) {
        if (!sweep.takes_next()) continue;
        How how;
        how.type = at::kFloat;
        how.tolerance = 1e-4;
        how.transport = std::string(transport.name);
        how.ranks = ranks;
        how.ranks_per_node = 2;
        check(variant, ranks == 3 ? std::vector<int64_t>{300, 40, 7, 1, 150} : std::vector<int64_t>{90, 1, 5, 70}, true,
              how);
      }
    }
  }
}

TEST(LinearAttention, OrderedTransportsGiveTheSameBits) {
  const std::vector<int64_t> lengths{200, 30};
  for (const Variant& variant : {kVariants[3], kVariants[5]}) {
    const Tensors t = random_tensors(variant, lengths, false);
    std::vector<at::Tensor> first(4);
    for (const auto& transport : plan::transports()) {
      if (!transport.ordered) continue;
      const auto plan = plan_for(lengths, 4, "ring", plan::ElementType::f32, 2);
      comm::run_threads(4, [&](const comm::Communicator& communicator) {
        at::set_num_threads(1);
        const run::Executable executable(plan, communicator);
        const at::Tensor rows = home_rows(*plan, communicator.rank());
        const auto local = [&](const at::Tensor& x) {
          return x.defined() ? x.index_select(0, rows).to(at::kFloat) : x;
        };
        LinearOptions options;
        options.transport = std::string(transport.name);
        const at::Tensor output =
            run::linear_attention({local(t.query), local(t.key), local(t.value), local(t.gate), local(t.beta), {}},
                                  executable, options)
                .output;
        at::Tensor& known = first[static_cast<size_t>(communicator.rank().value)];
        if (!known.defined()) known = output;
        EXPECT_TRUE(at::equal(known, output)) << variant.name << ", " << transport.name;
      });
    }
  }
}

TEST(LinearAttention, SendsWhatTheFormulaSays) {
  const std::vector<int64_t> lengths{200, 3, 30};
  for (const auto& transport : plan::transports()) {
    const auto plan = plan_for(lengths, 4, "zigzag", plan::ElementType::f32, 2);
    const Tensors t = random_tensors(kVariants[5], lengths, false);
    plan::AttentionShape shape{kHeads, kHeads, kKeyDim, plan::ElementType::f32, {}};
    shape.state = {kValueDim, plan::Gate::none, true, false, false};
    std::mutex mutex;
    int64_t forward = 0, backward = 0;
    comm::run_threads(4, [&](const comm::Communicator& inner) {
      at::set_num_threads(1);
      const auto recorded = std::make_shared<comm::Recorded>();
      const run::Executable executable(plan, comm::make_recording_communicator(inner, recorded));
      const at::Tensor rows = home_rows(*plan, inner.rank());
      const auto local = [&](const at::Tensor& x) { return x.index_select(0, rows).to(at::kFloat).requires_grad_(); };
      LinearOptions options;
      options.transport = std::string(transport.name);
      const LinearInput input{local(t.query), local(t.key), local(t.value), local(t.gate), local(t.beta), {}};
      run::linear_attention(input, executable, options);  // compares the layer
      recorded->sends.clear();
      const at::Tensor output = run::linear_attention(input, executable, options).output;
      const int64_t sent_forward = recorded->sent_bytes();
      recorded->sends.clear();
      torch::autograd::grad({output}, {input.query}, {at::ones_like(output)});
      const std::lock_guard lock(mutex);
      forward += sent_forward;
      backward += recorded->sent_bytes();
    });
    const plan::StateOptions options{std::string(transport.name), 0};
    EXPECT_EQ(forward, plan::forward_traffic(*plan, shape, options).bytes(shape)) << transport.name;
    EXPECT_EQ(backward, plan::backward_traffic(*plan, shape, options).bytes(shape)) << transport.name;
  }
}

// A layer that is computed again sends nothing, and has the same output and gradients.
TEST(LinearAttention, SavedStatesServeARecomputation) {
  const std::vector<int64_t> lengths{60, 3, 20};
  const Tensors t = random_tensors(kVariants[6], lengths, false);
  const auto plan = plan_for(lengths, 3, "zigzag", plan::ElementType::f64);
  comm::run_threads(3, [&](const comm::Communicator& inner) {
    at::set_num_threads(1);
    const auto recorded = std::make_shared<comm::Recorded>();
    const run::Executable executable(plan, comm::make_recording_communicator(inner, recorded));
    const at::Tensor rows = home_rows(*plan, inner.rank());
    const auto local = [&](const at::Tensor& x) { return x.index_select(0, rows).requires_grad_(); };
    const LinearInput input{local(t.query), local(t.key), local(t.value), local(t.gate), local(t.beta), {}};
    const std::vector<at::Tensor> leaves{input.query, input.key, input.value, input.gate, input.beta};
    const at::Tensor grad = t.grad_output.index_select(0, rows);
    const at::Tensor first = run::linear_attention(input, executable).output;
    const auto expected = torch::autograd::grad({first}, leaves, {grad});

    LinearOptions options;
    options.states = std::make_shared<run::SavedStates>();
    {
      const at::NoGradGuard off;
      EXPECT_TRUE(at::equal(run::linear_attention(input, executable, options).output, first));
    }
    recorded->sends.clear();
    const at::Tensor again = run::linear_attention(input, executable, options).output;
    EXPECT_EQ(recorded->sent_bytes(), 0);
    EXPECT_TRUE(at::equal(again, first));
    const auto gradients = torch::autograd::grad({again}, leaves, {grad});
    for (size_t i = 0; i < leaves.size(); ++i) EXPECT_TRUE(at::equal(gradients[i], expected[i])) << i;
  });
}

TEST(LinearAttention, Normalized) {
  const std::vector<int64_t> lengths{50, 1, 20};
  Tensors t = random_tensors(kVariants[2], lengths, false);
  t.query = t.query.abs();
  t.key = t.key.abs();
  const at::Tensor ones = at::ones({t.value.size(0), kHeads, 1}, t.value.options());
  Tensors wide = t;
  wide.value = at::cat({t.value, ones}, -1);
  wide.grad_output = at::cat({t.grad_output, ones}, -1);
  const at::Tensor sums = sequential(wide, lengths, 0.5).output.detach();
  const at::Tensor expected = sums.narrow(-1, 0, kValueDim) / sums.narrow(-1, kValueDim, 1);
  const auto plan = plan_for(lengths, 3, "ring", plan::ElementType::f64);
  comm::run_threads(3, [&](const comm::Communicator& communicator) {
    at::set_num_threads(1);
    const run::Executable executable(plan, communicator);
    const at::Tensor rows = home_rows(*plan, communicator.rank());
    LinearOptions options;
    options.normalize = true;
    const auto local = [&](const at::Tensor& x) { return x.index_select(0, rows); };
    const LinearInput input{local(t.query), local(t.key), local(t.value), local(t.gate), {}, {}};
    EXPECT_LE(distance(run::linear_attention(input, executable, options).output, local(expected)), 1e-12);
  });
}

// The hook, with the recurrence itself as the kernel.
std::pair<at::Tensor, at::Tensor> sequential_segment(const run::LinearOperands& x, const at::Tensor& state) {
  return test::naive_recurrence(x.query, x.key, x.value, x.gate, x.beta, x.scale, state);
}

TEST(LinearAttention, AKernelOfTheUsers) {
  test::Sweep sweep;
  for (const Variant& variant : kVariants) {
    for (const auto& transport : plan::transports()) {
      for (const bool states : {false, true}) {
        if (!sweep.takes_next()) continue;
        How how;
        how.transport = std::string(transport.name);
        how.strategy = "zigzag";
        how.ranks_per_node = 2;
        how.kernel = run::make_function_kernel(sequential_segment);
        check(variant, {40, 3, 1, 12}, states, how);
      }
    }
  }
}

// What a rank's error says.
std::string error_of(const LinearInput& input, const LinearOptions& options = {}, const char* mask = "causal") {
  plan::Request request = plan_for({4, 2}, 1, "ring", plan::ElementType::f32)->request;
  request.documents = plan::Documents({4, 2}, plan::parse_mask(mask));
  const auto plan = plan::make_plan(std::move(request));
  const run::Executable executable(plan, comm::make_threads_communicators(1)[0]);
  try {
    run::linear_attention(input, executable, options);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(LinearAttention, BadInputNamesTheRuleAndTheRemedy) {
  const auto x = [](at::IntArrayRef sizes) { return at::full(sizes, 0.5, at::kFloat); };
  const auto expect = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  const LinearInput good{x({6, 2, 3}), x({6, 2, 3}), x({6, 2, 4}), {}, {}, {}};
  EXPECT_EQ(error_of(good), "no error");
  LinearInput bad = good;
  bad.gate = x({6, 2});
  expect(error_of(bad), "gate is 0.5 at [0, 0]; gates are logarithms of decays, at most 0");
  bad.gate = at::full({6, 2}, NAN);
  expect(error_of(bad), "gate is nan at [0, 0]");
  bad.gate = -x({2, 6});
  expect(error_of(bad), "gate has shape [2, 6]; it must be [6, 2]");
  bad = good;
  bad.key = x({6, 2, 4});
  expect(error_of(bad), "key has shape [6, 2, 4]; it must be [6, 2, 3]: as query");
  bad = good;
  bad.query = x({5, 2, 3});
  expect(error_of(bad), "rank 0 of the plan has 6 rows");
  bad = good;
  bad.value = bad.value.to(at::kDouble);
  expect(error_of(bad), "value is Double, it must be Float");
  bad = good;
  bad.beta = x({6, 3});
  expect(error_of(bad), "beta has shape [6, 3]; it must be [6, 2]");
  for (const double number : {NAN, INFINITY, -INFINITY}) {
    bad.beta = x({6, 2});
    bad.beta[4][1] = number;
    expect(error_of(bad), join_text("beta is ", number, " at [4, 1]; it must be finite"));
  }
  bad.beta = at::ones({6, 2}, at::kLong);
  expect(error_of(bad), "beta is Long; give a floating type");
  bad = good;
  bad.initial_state = x({1, 2, 3, 4});
  expect(error_of(bad), "initial_state has shape [1, 2, 3, 4]; it must be [2, 2, 3, 4]");
  LinearOptions options;
  options.normalize = true;
  bad = good;
  bad.key = bad.key * 0;
  expect(error_of(bad, options), "row 0, head 0 would be divided by 0");
  options = {};
  options.scale = NAN;
  expect(error_of(good, options), "scale is nan; it must be finite");
  options = {};
  expect(error_of(good, options, "full"), "document 0 has the mask full, but the state of a linear layer goes from");
  EXPECT_EQ(error_of(good, options, "window:2"), "no error");
  options.transport = "allgather";
  expect(error_of(good, options), "did you mean 'all_gather'?");
  options.transport = "pipelined";
  options.state_blocks = 3;
  expect(error_of(good, options), "3 blocks of 2 heads");
}

TEST(LinearAttention, RanksThatDifferInTheLayerAllHearOfIt) {
  const auto plan = plan_for({40}, 2, "ring", plan::ElementType::f32);
  std::vector<std::string> texts(2);
  try {
    comm::run_threads(2, [&](const comm::Communicator& communicator) {
      const run::Executable executable(plan, communicator);
      const int64_t heads = 2 + communicator.rank();
      const at::Tensor x = at::ones({20, heads, 4});
      try {
        run::linear_attention({x, x, x, {}, {}, {}}, executable);
      } catch (const Error& error) {
        texts[static_cast<size_t>(communicator.rank().value)] = error.what();
        throw;
      }
    });
  } catch (const Error&) {
  }
  for (const std::string& text : texts) EXPECT_NE(text.find("heads"), std::string::npos) << text;
}

}  // namespace
}  // namespace evenspan
