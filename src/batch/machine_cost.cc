#include "evenspan/batch/machine_cost.h"

#include <algorithm>
#include <cmath>

#include "evenspan/core/error.h"
#include "simulate/even_links.h"

namespace evenspan::batch {
namespace {

double weights(const simulate::Model& model) {
  const double embeddings = 2.0 * static_cast<double>(model.vocabulary) * static_cast<double>(model.hidden);
  return model.layer_weights() + embeddings;
}

// A micro-batch reads every weight once more, which takes a processor about as long as the products of so many tokens
// with it: by operations, one more is taken only where it gains more than that.
constexpr double kTokensOfMicroBatch = 128;

// Of queries, keys, values and outputs.
double attention_columns(const plan::AttentionShape& shape) {
  return (2.0 * shape.num_heads + 2.0 * shape.num_kv_heads) * shape.head_dim;
}

// What documents take where no rank needs another's rows; `slowdown` times as long.
void add_work(const plan::CostModel& of, const simulate::Model& model, double slowdown, Cost* cost) {
  const double pair_seconds = slowdown * of.pair_seconds / std::max(1, model.num_softmax_layers());  // of a layer
  cost->square_seconds = pair_seconds * model.num_unwindowed_layers() / 2;
  cost->token_seconds = slowdown * of.token_seconds;
  for (const auto& [count, keys] : model.windows) cost->windows.push_back({keys, pair_seconds * count});
}

}  // namespace

StateLayout parse_state_layout(const std::string& text) {
  if (text == "optimizer") return StateLayout::sharded_optimizer;
  if (text == "all") return StateLayout::sharded;
  fail_invalid("[batch] states cannot be sharded as \"", text, "\"; give optimizer or all");
}

double state_bytes(const simulate::Model& model, StateLayout layout, int32_t num_ranks) {
  const auto weight = static_cast<double>(num_bytes(model.shape.element));
  const auto sum = static_cast<double>(num_bytes(plan::accumulation_type(model.shape.element)));
  const double divided = 3 * sum + (layout == StateLayout::sharded ? weight + sum : 0);
  const double whole = layout == StateLayout::sharded ? 0 : weight + sum;
  return weights(model) * (whole + divided / num_ranks);
}

double token_bytes(const simulate::Model& model) {
  const auto element = static_cast<double>(num_bytes(model.shape.element));
  const auto sum = static_cast<double>(num_bytes(plan::accumulation_type(model.shape.element)));
  const auto hidden = static_cast<double>(model.hidden);
  double mlp = 0;  // columns that a token passes, of all layers
  int32_t plain = model.num_layers;
  for (const simulate::MlpLayers& layers : model.mlps) {
    mlp += layers.count * layers.columns(layers.num_active);
    plain -= layers.count;
  }
  mlp += plain * 3.0 * static_cast<double>(model.intermediate);
  const int32_t softmax = model.num_softmax_layers();
  double attention = softmax * attention_columns(model.shape);
  for (const simulate::LinearLayers& of : model.linear) attention += of.count * attention_columns(of.shape);
  const double layers = (model.num_layers * 4 * hidden + attention) * element + softmax * model.shape.num_heads * sum;
  const double output = hidden * element + 2 * static_cast<double>(model.vocabulary) * sum;
  return layers + mlp * element + output;
}

int64_t capacity_tokens(const simulate::Model& model, int32_t num_ranks, int64_t memory_bytes, StateLayout layout) {
  const double states = state_bytes(model, layout, num_ranks);
  const double token = token_bytes(model);
  if (memory_bytes < 1) fail_invalid("[batch] a rank has ", memory_bytes, " bytes of memory; give at least 1");
  const double room = std::floor((static_cast<double>(memory_bytes) - states) / token);
  if (room < 1) {
    const double gibibytes = std::ceil((states + token) / static_cast<double>(int64_t{1} << 30));
    fail(ErrorKind::resource, "[batch] a rank has ", memory_bytes, " bytes of memory; the model's states take ",
         std::llround(states), " of them and a token ", std::llround(token), ": give at least ",
         std::llround(states + token), " bytes (", std::llround(gibibytes), "GiB), or use more ranks");
  }
  return static_cast<int64_t>(std::min(room, 1e15));
}

Cost operation_cost(const simulate::Model& model, int32_t num_ranks) {
  Cost cost;
  cost.num_ranks = cost.ranks_per_node = num_ranks;
  add_work(simulate::cost_model(model), model, 1, &cost);
  cost.micro_batch_seconds = kTokensOfMicroBatch * cost.token_seconds;
  cost.exchange_seconds = {0};
  for (int64_t degree = 1; degree < num_ranks; degree *= 2) cost.exchange_seconds.push_back(0);
  return cost;
}

Cost machine_cost(const simulate::Scenario& scenario) {
  const simulate::Model& model = scenario.model;
  const simulate::Machine& machine = scenario.machine;
  const plan::Topology& topology = machine.topology;
  const plan::CostModel of = simulate::cost_model(scenario.profile, model);
  Cost cost;
  cost.num_ranks = topology.num_ranks;
  cost.ranks_per_node = topology.ranks_per_node();
  const double slowdown = machine.shares_cores() ? static_cast<double>(topology.num_ranks) / machine.num_cores : 1;
  add_work(of, model, slowdown, &cost);
  cost.micro_batch_seconds = slowdown * of.round_seconds * of.num_layers;
  const double bytes = 2.0 * attention_columns(model.shape) * static_cast<double>(num_bytes(model.shape.element)) *
                       model.num_softmax_layers();
  const simulate::EvenLinks links(machine);
  std::vector<double> unused(machine.links.size(), 0);
  cost.exchange_seconds = {0};
  constexpr double kTokens = 1 << 16;  // at once, so that latencies do not count
  for (int64_t degree = 2; cost.exchange_seconds.size() < 32; degree *= 2) {
    if (degree / 2 >= cost.num_ranks) break;
    const auto group = static_cast<int32_t>(std::min(degree, int64_t{cost.num_ranks}));
    const double seconds = links.even(kTokens * bytes * (group - 1) / group, group, &unused) / kTokens;
    cost.exchange_seconds.push_back(std::max(seconds, cost.exchange_seconds.back()));
  }
  return cost;
}

}  // namespace evenspan::batch
