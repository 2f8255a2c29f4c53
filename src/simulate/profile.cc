#include "evenspan/simulate/profile.h"

#include <algorithm>

#include "evenspan/core/error.h"
#include "evenspan/simulate/formula.h"
#include "evenspan/simulate/schedule.h"

namespace evenspan::simulate {
namespace {

// Far beyond what is: sums and products of numbers in these bounds stay finite, and do not vanish.
constexpr double kMostSeconds = 1e6;
constexpr double kLeastTime = 1e-18;  // of what is not free
constexpr double kLeastRate = 1e-3;   // a second
constexpr double kMostRate = 1e21;
constexpr int64_t kMostRows = int64_t{1} << 31;  // of the grid's points
constexpr int32_t kMostDim = 1 << 20;            // head dimension, tile, ranks
constexpr size_t kMostLevels = 32;

bool is_time(double seconds) { return seconds == 0 || (seconds >= kLeastTime && seconds <= kMostSeconds); }
bool is_rate(double rate) { return rate >= kLeastRate && rate <= kMostRate; }

// Ends a refusal.
const std::string& bounds() {
  static const std::string kText = join_text("a time is 0 or from ", kLeastTime, " to ", kMostSeconds,
                                             " s, a rate from ", kLeastRate, " to ", kMostRate, " a second");
  return kText;
}

// Where a value lies on an axis: between point `low` and the next; point 0 is 0, point i is points[i - 1].
struct AxisPosition {
  size_t low;
  double weight;  // of the upper point; above 1 beyond the last one
};

AxisPosition locate(const std::vector<int64_t>& points, double value) {
  size_t high = 0;
  while (high + 1 < points.size() && static_cast<double>(points[high]) < value) ++high;
  const double begin = high == 0 ? 0 : static_cast<double>(points[high - 1]);
  return {high, (value - begin) / (static_cast<double>(points[high]) - begin)};
}

double interpolated(const AttentionTimes& times, const std::vector<double>& seconds, double num_queries,
                    double num_keys) {
  const AxisPosition q = locate(times.queries, num_queries);
  const AxisPosition k = locate(times.keys, num_keys);
  const auto at = [&](size_t row, size_t column) {
    return row == 0 || column == 0 ? 0 : seconds[(row - 1) * times.keys.size() + column - 1];
  };
  const double low = at(q.low, k.low) + k.weight * (at(q.low, k.low + 1) - at(q.low, k.low));
  const double high = at(q.low + 1, k.low) + k.weight * (at(q.low + 1, k.low + 1) - at(q.low + 1, k.low));
  return low + q.weight * (high - low);
}

double square_seconds(const AttentionTimes& times, const std::vector<double>& seconds, double num_rows) {
  const std::vector<int64_t>& squares = times.squares;
  size_t high = 1;
  while (high + 1 < squares.size() && static_cast<double>(squares[high]) < num_rows) ++high;
  const auto rows = [&](size_t point) { return static_cast<double>(squares[point]); };
  const auto per_row = [&](size_t point) { return seconds[point] / rows(point); };
  if (num_rows <= rows(0) || squares.size() == 1) return num_rows * per_row(0);
  const double weight = (num_rows - rows(high - 1)) / (rows(high) - rows(high - 1));
  return num_rows * (per_row(high - 1) + weight * (per_row(high) - per_row(high - 1)));
}

void check_axis(const Profile& profile, const char* what, const std::vector<int64_t>& points) {
  if (points.empty()) fail_invalid("[profile] ", profile.name, ": the grid has no ", what, "; give at least one");
  int64_t before = 0;
  for (const int64_t point : points) {
    if (point <= before || point > kMostRows) {
      fail_invalid("[profile] ", profile.name, ": ", what, " has ", point, " after ", before,
                   "; the points of the grid are positive and ascend, up to ", kMostRows);
    }
    before = point;
  }
}

void check_pass(const Profile& profile, const AttentionTimes& times, const char* what, const PassTimes& pass) {
  const size_t expected = times.queries.size() * times.keys.size();
  if (pass.square_seconds.size() != times.squares.size()) {
    fail_invalid("[profile] ", profile.name, ": ", what, " has ", pass.square_seconds.size(), " times for ",
                 times.squares.size(), " causal squares; give one for each");
  }
  if (pass.seconds.size() != expected) {
    fail_invalid("[profile] ", profile.name, ": ", what, " has ", pass.seconds.size(), " times for a grid of ",
                 times.queries.size(), " x ", times.keys.size(), "; give one for each point");
  }
  for (const std::vector<double>* table : {&pass.seconds, &pass.square_seconds}) {
    for (const double seconds : *table) {
      if (seconds > 0 && is_time(seconds)) continue;
      fail_invalid("[profile] ", profile.name, ": ", what, " has a time of ", seconds, " s; times are positive, from ",
                   kLeastTime, " to ", kMostSeconds, " s");
    }
  }
  if (!is_time(pass.merge_seconds) || !is_time(pass.merge_row_seconds)) {
    fail_invalid("[profile] ", profile.name, ": ", what, " merges in ", pass.merge_seconds, " s and ",
                 pass.merge_row_seconds, " s a row; ", bounds());
  }
  if (!is_time(pass.operation_seconds) || !is_time(pass.segment_seconds)) {
    fail_invalid("[profile] ", profile.name, ": ", what, " takes ", pass.operation_seconds, " s an operation and ",
                 pass.segment_seconds, " s a segment; ", bounds());
  }
}

void check_attention(const Profile& profile, const AttentionTimes& times) {
  if (times.head_dim < 1 || times.head_dim > kMostDim || times.tile < 1 || times.tile > kMostDim ||
      times.elements.empty()) {
    fail_invalid("[profile] ", profile.name, ": attention times are of head dimension ", times.head_dim, ", tile ",
                 times.tile, " and ", times.elements.size(), " element types; each is at least 1, and at most ",
                 kMostDim);
  }
  check_axis(profile, "queries", times.queries);
  check_axis(profile, "keys", times.keys);
  if (!times.squares.empty()) check_axis(profile, "squares", times.squares);
  check_pass(profile, times, "forward", times.forward);
  check_pass(profile, times, "backward", times.backward);
}

void check_link(const std::string& whose, size_t level, const Link& link) {
  if (!is_time(link.latency_seconds) || !is_rate(link.bytes_per_second)) {
    fail_invalid(whose, ": level ", level, " has a latency of ", link.latency_seconds, " s and ", link.bytes_per_second,
                 " bytes per second; ", bounds());
  }
  if (!is_time(link.message_seconds)) {
    fail_invalid(whose, ": level ", level, " takes ", link.message_seconds, " s for each further message; ", bounds());
  }
  if (!is_time(link.compute_byte_seconds) || !is_time(link.compute_message_seconds)) {
    fail_invalid(whose, ": level ", level, " takes ", link.compute_byte_seconds, " s a byte and ",
                 link.compute_message_seconds, " s a message from compute engines; ", bounds());
  }
  if (link.cards < 0 || (link.cards > 0) != (link.card_bytes_per_second != 0)) {
    fail_invalid(whose, ": level ", level, " has ", link.cards, " cards of ", link.card_bytes_per_second,
                 " bytes per second; give both, or neither");
  }
  if (link.cards > 0 && !is_rate(link.card_bytes_per_second)) {
    fail_invalid(whose, ": level ", level, " has ", link.cards, " cards of ", link.card_bytes_per_second,
                 " bytes per second; ", bounds());
  }
}

bool covers(const AttentionTimes& times, const plan::AttentionShape& shape) {
  return times.head_dim == shape.head_dim &&
         std::find(times.elements.begin(), times.elements.end(), shape.element) != times.elements.end();
}

}  // namespace

double segment_seconds(const AttentionTimes& times, Pass pass, plan::TileKind kind, int64_t num_queries,
                       int64_t num_keys, int32_t num_heads) {
  const auto whole_tiles = [&times](int64_t n) {
    const int64_t num_tiles = (n + times.tile - 1) / times.tile;
    return static_cast<double>(num_tiles * times.tile);
  };
  const double q = whole_tiles(num_queries);
  const double k = whole_tiles(num_keys);
  const bool square = kind == plan::TileKind::causal;
  const PassTimes& of_pass = times.times(pass);
  if (square && !times.squares.empty()) {
    return of_pass.segment_seconds + num_heads * square_seconds(times, of_pass.square_seconds, q);
  }
  return of_pass.segment_seconds +
         num_heads * interpolated(times, of_pass.seconds, q, square ? (k + static_cast<double>(times.tile)) / 2 : k);
}

void validate(const Profile& profile) {
  if (profile.attention.empty()) fail_invalid("[profile] ", profile.name, " has no attention times; give some");
  for (const AttentionTimes& times : profile.attention) check_attention(profile, times);
  const bool memory = is_rate(profile.memory_bytes_per_second) && is_time(profile.memory_operation_seconds) &&
                      is_time(profile.memory_pair_seconds);
  if (!memory || !is_rate(profile.forward_flops_per_second) || !is_rate(profile.backward_flops_per_second)) {
    fail_invalid("[profile] ", profile.name, " has ", profile.memory_bytes_per_second, " bytes of memory a second, ",
                 profile.memory_operation_seconds, " s a copy, ", profile.memory_pair_seconds, " s a pair, ",
                 profile.forward_flops_per_second, " and ", profile.backward_flops_per_second, " operations a second; ",
                 bounds());
  }
  if (profile.ranks_per_node < 1) {
    fail_invalid("[profile] ", profile.name, " has ", profile.ranks_per_node, " ranks per node; give at least 1");
  }
  if (profile.links.empty()) fail_invalid("[profile] ", profile.name, " has no links; give that inside a node");
  for (size_t level = 0; level < profile.links.size(); ++level) {
    check_link("[profile] " + profile.name, level, profile.links[level]);
  }
}

const AttentionTimes& attention_times(const Profile& profile, const plan::AttentionShape& shape) {
  std::string known;
  for (const AttentionTimes& times : profile.attention) {
    if (covers(times, shape)) return times;
    for (const plan::ElementType element : times.elements) {
      known += join_text(known.empty() ? "" : ", ", times.head_dim, " in ", to_string(element));
    }
  }
  fail_invalid("[profile] ", profile.name, " has no attention times of head dimension ", shape.head_dim, " in ",
               to_string(shape.element), "; it has ", known,
               "; use one of these, or a profile that was measured for it");
}

namespace {

double token_seconds(double forward, double backward, const Model& model) {
  double seconds = model.token_flops() * (forward + 2 * backward);
  for (const LinearLayers& layers : model.linear) {
    const auto flops = [&](Pass pass) {
      const LinearFlops of = linear_flops(layers.shape, 1, pass);
      return layers.count * (of.intra + of.apply);
    };
    seconds += flops(Pass::forward) * forward + flops(Pass::backward) * backward;
  }
  return seconds;
}

}  // namespace

double token_seconds(const Profile& profile, const Model& model) {
  return token_seconds(1 / profile.forward_flops_per_second, 1 / profile.backward_flops_per_second, model);
}

plan::CostModel cost_model(const Model& model) {
  constexpr double kSecondsPerFlop = 1e-12;
  constexpr double kProductFlops = 2 * (2 + 5);  // of an element of a head: 2 products in forward, 5 in backward
  const double width = static_cast<double>(model.shape.num_heads) * model.shape.head_dim;
  plan::CostModel cost{kSecondsPerFlop * kProductFlops * width * model.num_softmax_layers(),
                       token_seconds(kSecondsPerFlop, kSecondsPerFlop, model)};
  cost.num_layers = std::max(1, model.num_softmax_layers());
  return cost;
}

plan::CostModel cost_model(const Profile& profile, const Model& model) {
  const AttentionTimes& times = attention_times(profile, model.shape);
  const double pairs = static_cast<double>(times.queries.back()) * static_cast<double>(times.keys.back());
  const double pair_seconds = (times.forward.seconds.back() + times.backward.seconds.back()) / pairs;
  plan::CostModel cost{pair_seconds * model.shape.num_heads * model.num_softmax_layers(),
                       token_seconds(profile, model)};
  cost.tile = times.tile;
  const int32_t heads = model.shape.num_heads;
  int64_t step = times.tile;
  for (int64_t length = step; length <= times.queries.back(); length += step) {
    double seconds = 0;
    for (const Pass pass : {Pass::forward, Pass::backward}) {
      seconds += segment_seconds(times, pass, plan::TileKind::causal, length, length, heads) / heads;
    }
    const double length_pairs = static_cast<double>(length) * static_cast<double>(length + 1) / 2;
    cost.slowdowns.push_back({length, seconds / (pair_seconds * length_pairs)});
    if (length == 8 * step) step *= 2;
  }
  // A kernel, its packing and its unpacking, in both passes.
  cost.round_seconds =
      times.forward.operation_seconds + times.backward.operation_seconds + 4 * profile.memory_operation_seconds;
  cost.num_layers = std::max(1, model.num_softmax_layers());
  return cost;
}

Machine make_machine(const Profile& profile, int32_t num_ranks, int32_t ranks_per_node) {
  Machine machine;
  machine.topology = plan::make_topology(num_ranks, ranks_per_node == 0 ? profile.ranks_per_node : ranks_per_node);
  std::vector<plan::Level>& levels = machine.topology.levels;
  // A profile of nodes of one rank has no link within a node: its first one joins nodes.
  const bool has_single_ranks = profile.ranks_per_node == 1 && levels.size() > 1 && levels.front().group_size == 1;
  const size_t unlinked = has_single_ranks ? 1 : 0;
  if (levels.size() - unlinked > profile.links.size()) {
    fail_invalid("[simulate] ", num_ranks, " ranks in nodes of ", levels.front().group_size, " need ",
                 levels.size() - unlinked, " levels of links, the profile ", profile.name, " has ",
                 profile.links.size(), "; use fewer ranks, or a profile or topology with the missing level");
  }
  for (size_t level = 0; level < levels.size(); ++level) {
    const Link& link = profile.links[level - std::min(level, unlinked)];
    levels[level].latency_seconds = link.latency_seconds;
    levels[level].bytes_per_second = link.bytes_per_second;
    machine.links.push_back(link);
  }
  return machine;
}

Machine machine_of_replica(const Machine& machine, int32_t num_replicas) {
  Machine replica{plan::topology_of_replica(machine.topology, num_replicas), machine.links, 0};
  replica.links.resize(replica.topology.levels.size());
  if (!machine.shares_cores()) return replica;
  if (machine.num_cores % num_replicas != 0) {
    fail_invalid("[topology] replicas that share cores have as many each, but ", num_replicas, " replicas share ",
                 machine.num_cores, "; give replicas that divide the cores");
  }
  replica.num_cores = machine.num_cores / num_replicas;
  return replica;
}

void validate(const Machine& machine) {
  const std::vector<plan::Level>& levels = machine.topology.levels;
  const std::string whose = "[topology] the machine";
  if (levels.empty() || levels.size() != machine.links.size()) {
    fail_invalid(whose, " has ", levels.size(), " levels and ", machine.links.size(), " links; each level has one");
  }
  if (levels.size() > kMostLevels || machine.topology.num_ranks > kMostDim) {
    fail_invalid(whose, " has ", levels.size(), " levels and ", machine.topology.num_ranks, " ranks; at most ",
                 kMostLevels, " levels and ", kMostDim, " ranks are simulated");
  }
  for (size_t level = 0; level < levels.size(); ++level) {
    check_link(whose, level, machine.links[level]);
    const int32_t inside = level == 0 ? 1 : levels[level - 1].group_size;
    const int32_t size = levels[level].group_size;
    const bool whole_groups = level + 1 < levels.size() ? size >= 1 && size % inside == 0 : size >= inside;
    if (!whole_groups) {
      fail_invalid(whose, ": level ", level, " has groups of ", size, " ranks around groups of ", inside,
                   "; a group holds whole groups of the level below");
    }
  }
  if (levels.back().group_size != machine.topology.num_ranks) {
    fail_invalid(whose, ": the last level holds ", levels.back().group_size, " ranks; it holds all ",
                 machine.topology.num_ranks);
  }
  if (machine.num_cores < 0 || (machine.shares_cores() && machine.topology.num_ranks > kMostUniformRanks)) {
    fail_invalid(whose, " has ", machine.num_cores, " cores for ", machine.topology.num_ranks,
                 " ranks; they are not negative, and at most ", kMostUniformRanks,
                 " ranks share cores, of which strategies by formula know nothing; leave them out");
  }
}

}  // namespace evenspan::simulate
