#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstdio>

#include "cli/train/commands.h"
#include "evenspan/comm/communicator.h"
#include "evenspan/core/error.h"
#include "evenspan/core/output_file.h"
#include "evenspan/nn/decoder.h"
#include "evenspan/nn/loss.h"
#include "evenspan/nn/safetensors.h"
#include "evenspan/plan/plan.h"
#include "evenspan/run/executable.h"

namespace evenspan::cli {
namespace {

constexpr const char* kProbeUsage =
    R"(evenspan-train probe MODEL --tokens IN --out OUT [--ranks N] [--strategy S] [--dtype T]
    MODEL      Hugging Face folder: config.json and safetensors
    --tokens   safetensors with `ids` (int64, documents one after another) and `lengths` (int64, one for each)
    --out      safetensors: `logits` [tokens, vocabulary], `loss`, and `grad.NAME` for every parameter
    --ranks    default 1
    --strategy default mixed
    --dtype    f32 (default), bf16 or f64
)";

struct Options {
  std::string model, tokens, out, strategy = plan::kDefaultStrategy;
  at::ScalarType type = at::kFloat;
  plan::ElementType element = plan::ElementType::f32;
  int32_t ranks = 1;
};

Options read_options(const Parsed& parsed) {
  require_known(parsed, {"tokens", "out", "ranks", "strategy", "dtype"});
  Options o;
  if (parsed.positional.size() != 1)
    fail_invalid("[probe] one MODEL folder is needed, ", parsed.positional.size(), " were given");
  o.model = parsed.positional[0];
  for (const auto& [name, value] : parsed.options) {
    if (name == "tokens") o.tokens = value;
    if (name == "out") o.out = value;
    if (name == "strategy") o.strategy = value;
    if (name == "ranks") o.ranks = parse_ranks(value);
    if (name == "dtype") o.element = plan::parse_element_type(value);
  }
  if (o.element == plan::ElementType::f16) {
    fail(ErrorKind::unsupported, "[probe] --dtype is f16, which the trainer does not compute in; use f32, bf16 or f64");
  }
  o.type = o.element == plan::ElementType::f64    ? at::kDouble
           : o.element == plan::ElementType::bf16 ? at::kBFloat16
                                                  : at::kFloat;
  if (o.tokens.empty() || o.out.empty()) fail_invalid("[probe] --tokens and --out are needed; see probe --help");
  check_outputs({{"--out", o.out}});
  return o;
}

// The rows of a rank and where they stand in the whole batch.
struct Rows {
  at::Tensor ids, positions, labels;
  std::vector<int64_t> global;
};

Rows take_rows(const at::Tensor& ids, const std::vector<int64_t>& lengths, const std::vector<plan::PlacedSpan>& spans) {
  std::vector<int64_t> starts(1, 0);
  for (const int64_t length : lengths) starts.push_back(starts.back() + length);
  const auto* all = ids.const_data_ptr<int64_t>();
  std::vector<int64_t> tokens, positions, labels;
  Rows rows;
  for (const plan::PlacedSpan& s : spans) {
    const auto d = static_cast<size_t>(s.document.value);
    for (int64_t i = s.span.begin; i < s.span.end; ++i) {
      tokens.push_back(all[starts[d] + i]);
      positions.push_back(i);
      labels.push_back(i + 1 < lengths[d] ? all[starts[d] + i + 1] : nn::kNoLabel);
      rows.global.push_back(starts[d] + i);
    }
  }
  const auto tensor = [](const std::vector<int64_t>& values) {
    at::Tensor out = at::zeros({static_cast<int64_t>(values.size())}, at::kLong);
    std::copy(values.begin(), values.end(), out.mutable_data_ptr<int64_t>());
    return out;
  };
  rows.ids = tensor(tokens);
  rows.positions = tensor(positions);
  rows.labels = tensor(labels);
  return rows;
}

void probe_rank(const Options& options, const comm::Communicator& communicator) {
  const nn::ModelConfig model = nn::load_model_config(options.model);
  const nn::Parameters parameters = nn::load_weights(options.model, model, options.type);
  nn::require_gradients(parameters);
  const nn::Decoder decoder(model, parameters);

  const nn::SafetensorsFile file(options.tokens);
  const at::Tensor ids = file.tensor("ids").to(at::kLong);
  const at::Tensor lengths_tensor = file.tensor("lengths").to(at::kLong);
  const auto* first = lengths_tensor.const_data_ptr<int64_t>();
  const std::vector<int64_t> lengths(first, first + lengths_tensor.numel());

  plan::Request request;
  request.documents = plan::Documents(lengths, plan::Mask{});
  const int64_t num_tokens = request.documents.total_tokens();
  if (num_tokens != ids.numel())
    fail_invalid("[probe] lengths must add up to the number of ids, they are ", num_tokens, " and ", ids.numel());
  request.shape = plan::AttentionShape{static_cast<int32_t>(model.num_attention_heads),
                                       static_cast<int32_t>(model.num_key_value_heads),
                                       static_cast<int32_t>(model.head_dim), options.element};
  request.topology = plan::make_topology(communicator.size());
  request.options.strategy = options.strategy;
  const run::Executable executable(plan::make_plan(std::move(request)), communicator);

  const Rows rows = take_rows(ids, lengths, executable.plan().placement.spans(communicator.rank()));
  const int64_t labels = num_tokens - static_cast<int64_t>(lengths.size());
  const at::Tensor hidden = decoder.forward(rows.ids, rows.positions, executable);
  const at::Tensor loss = nn::tiled_cross_entropy(hidden, decoder.head_weight(), rows.labels,
                                                  labels > 0 ? 1.0 / static_cast<double>(labels) : 0.0);
  torch::autograd::backward({loss}, {});

  const c10::AutoGradMode no_gradients(false);
  at::Tensor logits = at::zeros({num_tokens, model.vocab_size}, options.type);
  const at::Tensor local = decoder.logits(hidden);
  for (size_t i = 0; i < rows.global.size(); ++i) logits[rows.global[i]].copy_(local[static_cast<int64_t>(i)]);
  nn::NamedTensors out;
  out.emplace_back("logits", comm::all_reduce(communicator, logits));  // every row is zero on all ranks but its own
  out.emplace_back("loss", comm::all_reduce(communicator, loss.detach()));
  for (const auto& [name, tensor] : parameters.items()) {
    out.emplace_back("grad." + name, comm::all_reduce(communicator, tensor.grad()));
  }
  if (communicator.rank() == 0) nn::write_safetensors(options.out, out);
}

}  // namespace

int probe(const Arguments& arguments) {
  const Parsed parsed = parse_arguments(arguments);
  if (parsed.help) {
    std::printf("%s", kProbeUsage);
    return kDone;
  }
  const Options options = read_options(parsed);
  comm::run_threads(options.ranks, [&](const comm::Communicator& communicator) { probe_rank(options, communicator); });
  return kDone;
}

}  // namespace evenspan::cli
