#include "evenspan/plan/request.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "evenspan/core/error.h"
#include "evenspan/plan/linear.h"

namespace evenspan::plan {

int64_t num_bytes(ElementType type) {
  switch (type) {
    case ElementType::bf16:
    case ElementType::f16:
      return 2;
    case ElementType::f32:
      return 4;
    case ElementType::f64:
      return 8;
  }
  return 0;
}

ElementType accumulation_type(ElementType type) {
  return type == ElementType::f64 ? ElementType::f64 : ElementType::f32;
}

std::string_view to_string(ElementType type) {
  switch (type) {
    case ElementType::bf16:
      return "bf16";
    case ElementType::f16:
      return "f16";
    case ElementType::f32:
      return "f32";
    case ElementType::f64:
      return "f64";
  }
  return "";
}

ElementType parse_element_type(const std::string& text) {
  constexpr std::pair<std::string_view, ElementType> kTorchNames[] = {
      {"bfloat16", ElementType::bf16}, {"float16", ElementType::f16}, {"half", ElementType::f16},
      {"float32", ElementType::f32},   {"float", ElementType::f32},   {"float64", ElementType::f64},
      {"double", ElementType::f64}};
  for (const auto type : {ElementType::bf16, ElementType::f16, ElementType::f32, ElementType::f64}) {
    if (text == to_string(type)) return type;
  }
  for (const auto& [name, type] : kTorchNames) {
    if (text == name) return type;
  }
  fail_invalid("[plan] element type is \"", text,
               "\"; use bf16, f16, f32 or f64 (or bfloat16, float16, float32, float64)");
}

double CostModel::slowdown(int64_t length) const {
  const int64_t own = std::max<int64_t>(1, length), whole = whole_tiles(own);
  const double rounding = static_cast<double>(whole) * static_cast<double>(whole + 1) /
                          (static_cast<double>(own) * static_cast<double>(own + 1));
  return rounding * whole_tiles_slowdown(whole);
}

double CostModel::rectangle_seconds(int64_t rows, int64_t keys) const {
  const int64_t whole_rows = whole_tiles(rows), whole_keys = whole_tiles(keys);
  return pair_seconds * static_cast<double>(whole_rows) * static_cast<double>(whole_keys) *
         whole_tiles_slowdown(2 * std::min(whole_rows, whole_keys));
}

double CostModel::whole_tiles_slowdown(int64_t length) const {
  if (slowdowns.empty()) return 1;
  const auto above = std::lower_bound(slowdowns.begin(), slowdowns.end(), length,
                                      [](const Slowdown& s, int64_t value) { return s.length < value; });
  if (above == slowdowns.begin()) return above->factor;
  if (above == slowdowns.end()) return slowdowns.back().factor;
  const Slowdown& below = *std::prev(above);
  const double weight = static_cast<double>(length - below.length) / static_cast<double>(above->length - below.length);
  return below.factor + weight * (above->factor - below.factor);
}

size_t Topology::level_between(Rank a, Rank b) const {
  size_t level = 0;
  while (level + 1 < levels.size() && a / levels[level].group_size != b / levels[level].group_size) ++level;
  return level;
}

Topology make_topology(int32_t num_ranks, int32_t ranks_per_node) {
  if (num_ranks < 1) fail_invalid("[plan] there are ", num_ranks, " ranks; give at least 1");
  if (ranks_per_node < 0) {
    fail_invalid("[plan] there are ", ranks_per_node, " ranks per node; give at least 1, or 0 for one node");
  }
  Topology topology{num_ranks, {}};
  if (ranks_per_node > 0 && ranks_per_node < num_ranks) topology.levels.push_back(Level{ranks_per_node, 0, 0});
  topology.levels.push_back(Level{num_ranks, 0, 0});
  return topology;
}

namespace {

// The first level whose groups neither hold whole replicas nor make them up; null if there is none.
const Level* level_that_parts(const Topology& topology, int32_t num_replicas) {
  if (num_replicas == 1) return nullptr;
  const int32_t ranks = topology.num_ranks / num_replicas;
  const auto at = std::find_if(topology.levels.begin(), topology.levels.end(), [&](const Level& level) {
    return level.group_size % ranks != 0 && ranks % level.group_size != 0;
  });
  return at == topology.levels.end() ? nullptr : &*at;
}

}  // namespace

Topology topology_of_replica(const Topology& topology, int32_t num_replicas) {
  if (const Level* level = level_that_parts(topology, num_replicas)) {
    std::string serving;
    for (int32_t replicas = 1; replicas <= topology.num_ranks; ++replicas) {
      if (topology.num_ranks % replicas != 0 || level_that_parts(topology, replicas) != nullptr) continue;
      serving += join_text(serving.empty() ? "" : ", ", replicas);
    }
    fail_invalid("[topology] replicas lie alike on the machine, each inside a node or on whole ones, but ",
                 num_replicas, " replicas of ", topology.num_ranks / num_replicas, " ranks do not on ",
                 level == &topology.levels.front() ? "nodes" : "groups", " of ", level->group_size,
                 " ranks; give one of ", serving, " replicas, or other nodes");
  }
  Topology replica{topology.num_ranks / num_replicas, {}};
  for (const Level& level : topology.levels) {
    replica.levels.push_back(level);
    if (level.group_size < replica.num_ranks) continue;
    replica.levels.back().group_size = replica.num_ranks;
    break;
  }
  return replica;
}

namespace {

// Far beyond what is: sums and products of numbers in these bounds stay finite, and do not vanish.
constexpr double kMostSeconds = 1e6;
constexpr double kLeastWork = 1e-40;  // seconds of a pair or token that is not free
constexpr double kMostRate = 1e21;    // bytes per second
constexpr int64_t kMostTokens = int64_t{1} << 31;
constexpr int32_t kMostDim = 1 << 20;
// Plans in which every rank sends to every other have 10 GB at that number, and four times as much at twice it.
constexpr int32_t kMostRanks = 8192;

bool is_work(double seconds) { return seconds == 0 || (seconds >= kLeastWork && seconds <= kMostSeconds); }

void validate(const Topology& topology) {
  constexpr size_t kMostLevels = 32;
  if (topology.num_ranks < 1) fail_invalid("[plan] there are ", topology.num_ranks, " ranks; give at least 1");
  if (topology.levels.empty() || topology.levels.size() > kMostLevels ||
      topology.levels.back().group_size != topology.num_ranks) {
    fail_invalid("[plan] the topology has ", topology.levels.size(), " levels, the last of which holds ",
                 topology.levels.empty() ? 0 : topology.levels.back().group_size, " ranks; there are 1 to ",
                 kMostLevels, ", and the last holds all ", topology.num_ranks);
  }
  int32_t inside = 1;
  for (const Level& level : topology.levels) {
    if (level.group_size < inside) {
      fail_invalid("[plan] a topology level has groups of ", level.group_size, " ranks around groups of ", inside,
                   "; levels go from small groups to large ones");
    }
    if (!(level.latency_seconds >= 0 && level.latency_seconds <= kMostSeconds) ||
        !(level.bytes_per_second >= 0 && level.bytes_per_second <= kMostRate)) {
      fail_invalid("[plan] a topology level has a latency of ", level.latency_seconds, " s and ",
                   level.bytes_per_second, " bytes per second; they are from 0 to ", kMostSeconds, " and ", kMostRate);
    }
    inside = level.group_size;
  }
}

void validate(const CostModel& cost) {
  constexpr double kMostSlowdown = 1e12;
  if (!is_work(cost.pair_seconds) || !is_work(cost.token_seconds) || cost.pair_seconds + cost.token_seconds == 0) {
    fail_invalid("[plan] the cost model has ", cost.pair_seconds, " s per pair and ", cost.token_seconds,
                 " s per token; each is 0 or from ", kLeastWork, " to ", kMostSeconds, ", and one is not 0");
  }
  if (!(cost.round_seconds >= 0 && cost.round_seconds <= kMostSeconds) || cost.num_layers < 1 ||
      cost.num_layers > kMostDim) {
    fail_invalid("[plan] the cost model has ", cost.round_seconds, " s per round and ", cost.num_layers,
                 " layers; the one is from 0 to ", kMostSeconds, ", the other from 1 to ", kMostDim);
  }
  if (cost.tile < 1 || cost.tile > kMostDim) {
    fail_invalid("[plan] the cost model's kernels have tiles of ", cost.tile, " rows; give 1 to ", kMostDim);
  }
  int64_t shorter = 0;
  for (const CostModel::Slowdown& slowdown : cost.slowdowns) {
    if (slowdown.length <= shorter || slowdown.length > kMostTokens ||
        !(slowdown.factor >= 1 / kMostSlowdown && slowdown.factor <= kMostSlowdown)) {
      fail_invalid("[plan] the cost model slows documents of ", slowdown.length, " tokens by ", slowdown.factor,
                   " after ", shorter, " tokens; lengths ascend up to ", kMostTokens, ", factors are from ",
                   1 / kMostSlowdown, " to ", kMostSlowdown);
    }
    shorter = slowdown.length;
  }
}

void validate(const AttentionShape& shape) {
  if (shape.num_heads < 1 || shape.num_kv_heads < 1 || shape.head_dim < 1) {
    fail_invalid("[plan] the attention shape has ", shape.num_heads, " heads, ", shape.num_kv_heads,
                 " kv heads and head dimension ", shape.head_dim, "; each is at least 1");
  }
  if (shape.num_heads % shape.num_kv_heads != 0) {
    fail_invalid("[plan] ", shape.num_kv_heads, " kv heads do not divide ", shape.num_heads,
                 " heads; every kv head serves the same number of query heads");
  }
  if (!shape.is_linear()) return;
  const double elements =
      static_cast<double>(shape.num_heads) * shape.head_dim * std::max(shape.head_dim, shape.state.value_dim);
  if (shape.num_kv_heads != shape.num_heads || elements > kMostTokens) {
    fail_invalid("[plan] a linear layer has ", shape.num_heads, " heads, ", shape.num_kv_heads,
                 " kv heads, key dimension ", shape.head_dim, " and value dimension ", shape.state.value_dim,
                 "; it has as many kv heads as heads, and states of at most ", kMostTokens, " elements");
  }
}

}  // namespace

void validate(const Request& request) {
  const AttentionShape& shape = request.shape;
  if (request.documents.size() == 0) fail_invalid("[plan] the batch has no documents; give at least one");
  if (shape.num_heads > kMostDim || shape.head_dim > kMostDim) {
    fail_invalid("[plan] there are ", shape.num_heads, " heads of dimension ", shape.head_dim, "; each is at most ",
                 kMostDim);
  }
  if (request.topology.num_ranks > kMostRanks) {
    fail_invalid("[plan] there are ", request.topology.num_ranks, " ranks; a batch is on at most ", kMostRanks,
                 ", since plans grow with their square: give each group of ranks a batch of its own");
  }
  validate(shape);
  if (shape.is_linear()) check_recurrent(request.documents, "plan");
  // All bytes that any strategy moves, and more.
  const double bytes = 2.0 * request.topology.num_ranks * static_cast<double>(request.documents.total_tokens()) *
                       (shape.num_heads + 2.0 * shape.num_kv_heads) * shape.head_dim * 8;
  if (bytes > 4e18) {
    fail_invalid("[plan] ranks x tokens x heads x head dimension make up to ", bytes,
                 " bytes, more than can be counted; plan smaller batches");
  }
  validate(request.topology);
  validate(request.cost);
  const Options& options = request.options;
  constexpr double kMostSlack = 1e6;
  if (!(options.token_slack >= 0 && options.token_slack <= kMostSlack)) {
    fail_invalid("[plan] token slack is ", options.token_slack, "; it is from 0 to ", kMostSlack,
                 " (0.1 allows 1.1 times the mean)");
  }
  if (options.ranks_per_group < 0 ||
      (options.ranks_per_group > 0 && request.topology.num_ranks % options.ranks_per_group != 0)) {
    fail_invalid("[plan] groups of ", options.ranks_per_group, " ranks do not divide ", request.topology.num_ranks,
                 " ranks; give a divisor, or 0 for the default");
  }
  if (options.stripe_tokens < 1 || options.stripe_tokens > kMostTokens) {
    fail_invalid("[plan] stripes have ", options.stripe_tokens, " tokens; give 1 to ", kMostTokens);
  }
  if (options.memory_budget_bytes < 0) {
    fail_invalid("[plan] the memory budget is ", options.memory_budget_bytes, " bytes; give a positive number or 0");
  }
}

}  // namespace evenspan::plan
