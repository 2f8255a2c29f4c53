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

// The cost is of documents that attend to themselves in all layers, on ranks that compute on their own.
void check_kind(const simulate::Scenario& scenario) {
  const auto refuse = [](const std::string& what) {
    fail(ErrorKind::unsupported, "[batch] ", what,
         ", which the cost of micro-batches knows nothing of; give another, or leave the limits of micro-batches out");
  };
  const simulate::Model& model = scenario.model;
  const int32_t linear = model.num_layers - model.num_softmax_layers();
  const int32_t windows = model.num_softmax_layers() - model.num_unwindowed_layers();
  if (linear > 0) refuse(join_text("the model has ", linear, " layers of linear attention"));
  if (windows > 0) refuse(join_text("the model has ", windows, " layers with windows"));
  if (scenario.machine.shares_cores()) {
    refuse(join_text("the topology has ", scenario.machine.num_cores, " cores for all ranks"));
  }
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
  const double head = model.shape.head_dim;
  const double attention = 2 * model.shape.num_heads * head + 2 * model.shape.num_kv_heads * head;
  double mlp = 0;  // columns that a token passes, of all layers
  int32_t plain = model.num_layers;
  for (const simulate::MlpLayers& layers : model.mlps) {
    mlp += layers.count * layers.columns(layers.num_active);
    plain -= layers.count;
  }
  mlp += plain * 3.0 * static_cast<double>(model.intermediate);
  const double layers = model.num_layers * ((4 * hidden + attention) * element + model.shape.num_heads * sum);
  const double output = hidden * element + 2 * static_cast<double>(model.vocabulary) * sum;
  return layers + mlp * element + output;
}

int64_t capacity_tokens(const simulate::Scenario& scenario, int64_t memory_bytes, StateLayout layout,
                        int32_t num_replicas) {
  const double states = state_bytes(scenario.model, layout, scenario.machine.topology.num_ranks * num_replicas);
  const double token = token_bytes(scenario.model);
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

Cost machine_cost(const simulate::Scenario& scenario, int64_t capacity_tokens) {
  check_kind(scenario);
  const simulate::Model& model = scenario.model;
  const plan::Topology& topology = scenario.machine.topology;
  const plan::CostModel of = simulate::cost_model(scenario.profile, model);
  Cost cost;
  cost.num_ranks = topology.num_ranks;
  cost.ranks_per_node = topology.ranks_per_node();
  cost.capacity_tokens = capacity_tokens;
  cost.square_seconds = of.pair_seconds / 2;
  cost.token_seconds = of.token_seconds;
  cost.micro_batch_seconds = of.stage_seconds * of.num_layers;
  const plan::AttentionShape& shape = model.shape;
  const double bytes = 2.0 * (2.0 * shape.num_heads + 2.0 * shape.num_kv_heads) * shape.head_dim *
                       static_cast<double>(num_bytes(shape.element)) * model.num_softmax_layers();
  const simulate::EvenLinks links(scenario.machine);
  std::vector<double> unused(scenario.machine.links.size(), 0);
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
