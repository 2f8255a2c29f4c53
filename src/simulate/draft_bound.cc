#include "simulate/draft_bound.h"

#include <algorithm>
#include <array>
#include <span>
#include <vector>

#include "evenspan/simulate/layers.h"
#include "plan/needs.h"
#include "plan/sorting.h"

namespace evenspan::simulate {
namespace {

using plan::Operand;

// Bytes that pass a rank's ways, by level of the machine.
class WayBytes {
 public:
  explicit WayBytes(const Machine& machine) : machine_(machine), bytes_(machine.links.size(), 0) {}

  void add(size_t level, int64_t bytes) { bytes_[level] += static_cast<double>(bytes); }
  void add(const WayBytes& other) {
    for (size_t level = 0; level < bytes_.size(); ++level) bytes_[level] += other.bytes_[level];
  }
  // From when they may begin; levels are ways of their own.
  double seconds() const {
    double longest = 0;
    for (size_t level = 0; level < bytes_.size(); ++level) {
      if (bytes_[level] == 0) continue;
      const Link& link = machine_.links[level];
      longest = std::max(longest, link.latency_seconds + bytes_[level] / link.bytes_per_second);
    }
    return longest;
  }

 private:
  const Machine& machine_;
  std::vector<double> bytes_;  // [level]
};

// A rank's tiles of a stage.
struct StageWork {
  explicit StageWork(const Machine& machine) : operands(machine), outputs(machine), gradients(machine) {}

  double seconds(Pass pass) const { return pass == Pass::forward ? forward_seconds : backward_seconds; }

  double forward_seconds = 0, backward_seconds = 0;
  bool parted = false;  // perhaps: see bound_of_draft()
  WayBytes operands;    // that the stage is the first to read
  WayBytes outputs;     // of other ranks' rows that the stage is the first to add to
  WayBytes gradients;   // of operands that the stage is the first to read
};

// What is known of a plan.
struct Sketch {
  const plan::Request& request;
  const plan::Placement& placement;
  const std::vector<plan::Task>& tasks;
  const std::vector<plan::Need>* needs = nullptr;  // null: not yet found
  bool keys_relayed = false;    // keys and values may come by way of other ranks: of the node, from other nodes
  bool tiles_parted = false;    // full tiles may yet be parted at such keys
  bool operands_moved = false;  // by the strategy, keys and values
  bool queries_moved = false;   // and queries
};

class StepBound {
 public:
  StepBound(const Sketch& sketch, const Scenario& scenario)
      : sketch_(sketch),
        request_(sketch.request),
        scenario_(scenario),
        times_(attention_times(scenario.profile, request_.shape)),
        copied_(static_cast<size_t>(request_.num_ranks()), 0) {
    for (const plan::Task& task : sketch.tasks) num_stages_ = std::max(num_stages_, task.stage + 1);
  }

  double seconds() {
    const int32_t num_ranks = request_.num_ranks();
    const auto tasks = plan::in_buckets(std::span(&sketch_.tasks, 1), static_cast<size_t>(num_ranks),
                                        [](const plan::Task& task) { return static_cast<size_t>(task.rank); });
    std::vector<std::vector<StageWork>> work;
    work.reserve(static_cast<size_t>(num_ranks));
    plan::NeedFinder finder(request_, sketch_.placement);
    std::vector<plan::Need> needs;  // of one rank after another
    for (int32_t r = 0; r < num_ranks; ++r) {
      work.push_back(stages_of(tasks[static_cast<size_t>(r)]));
      if (sketch_.needs != nullptr) continue;
      needs.clear();
      finder.append(Rank(r), tasks[static_cast<size_t>(r)], &needs);
      for (const plan::Need& need : needs) add(need, &work.back());
    }
    if (sketch_.needs != nullptr) {
      for (const plan::Need& need : *sketch_.needs) add(need, &work[static_cast<size_t>(need.move.to)]);
    }
    const double seconds_per_token = token_seconds(scenario_.profile, scenario_.model);
    const int32_t num_layers = num_layers_of(request_.documents, scenario_.model);
    double longest = 0;
    for (size_t r = 0; r < work.size(); ++r) {
      const auto tokens = static_cast<double>(sketch_.placement.num_tokens(Rank(static_cast<int64_t>(r))));
      // Each pass packs what it sends and unpacks what comes home.
      const double copies = copied_[r] / scenario_.profile.memory_bytes_per_second;
      const double layer = pass_seconds(work[r], Pass::forward, copies) + pass_seconds(work[r], Pass::backward, copies);
      longest = std::max(longest, num_layers * layer + seconds_per_token * tokens);
    }
    return longest;
  }

 private:
  bool crosses_nodes(Rank a, Rank b) const {
    const int32_t node = request_.topology.ranks_per_node();
    return a / node != b / node;
  }

  // Whether make_plan() may part the tile.
  bool is_parted(const plan::Task& task) const {
    if (!sketch_.tiles_parted || task.tile.kind != plan::TileKind::full) return false;
    for (const auto& [home, keys] : sketch_.placement.homes(task.tile.document, task.tile.keys)) {
      if (crosses_nodes(home, task.rank)) return true;
    }
    return false;
  }

  std::vector<StageWork> stages_of(std::span<const plan::Task> tasks) const {
    std::vector<StageWork> stages(static_cast<size_t>(num_stages_), StageWork(scenario_.machine));
    for (const plan::Task& task : tasks) {
      StageWork& stage = stages[static_cast<size_t>(task.stage)];
      if (stage.forward_seconds == 0) {
        stage.forward_seconds = times_.forward.operation_seconds;
        stage.backward_seconds = times_.backward.operation_seconds;
      }
      const bool parted = is_parted(task);
      stage.parted = stage.parted || parted;
      stage.forward_seconds += tile_seconds(Pass::forward, task.tile, parted);
      stage.backward_seconds += tile_seconds(Pass::backward, task.tile, parted);
    }
    return stages;
  }

  double tile_seconds(Pass pass, const plan::Tile& tile, bool parted) const {
    const auto seconds = [&](int64_t keys) {
      return segment_seconds(times_, pass, tile.kind, tile.queries.size(), keys, tile.heads.size());
    };
    const int64_t most = tile.keys.size();
    double least = seconds(most);
    if (!parted) return least;
    // Between points of the grid a key's part of the time is monotone in the keys.
    for (const int64_t keys : times_.keys) {
      if (keys < most) least = std::min(least, seconds(keys) / static_cast<double>(keys) * static_cast<double>(most));
    }
    return least;
  }

  void add(const plan::Need& need, std::vector<StageWork>* stages) {
    const plan::Move& move = need.move;
    const size_t level = request_.topology.level_between(move.from, move.to);
    const int64_t bytes = plan::payload_bytes(move, request_.shape);
    StageWork& first = (*stages)[static_cast<size_t>(move.stage)];
    if (move.operand == Operand::key_value) {
      const bool crosses = crosses_nodes(move.from, move.to);
      if (!sketch_.operands_moved && !(sketch_.keys_relayed && crosses)) first.operands.add(level, bytes);
      if (!(sketch_.tiles_parted && crosses)) first.gradients.add(level, bytes);
      return;
    }
    if (!sketch_.queries_moved) first.operands.add(level, bytes);
    first.gradients.add(level, bytes);
    first.outputs.add(level, bytes);
    // Read and written: a row alone is dense, and so are all heads of any rows.
    if (sketch_.queries_moved || move.rows.size() == 1 || move.heads.size() == request_.shape.num_heads) return;
    copied_[static_cast<size_t>(move.from.value)] += 2 * static_cast<double>(bytes);
  }

  // Of a rank that copies for `copies` before what it sends, and as long behind what comes home.
  double pass_seconds(const std::vector<StageWork>& stages, Pass pass, double copies) const {
    const bool forward = pass == Pass::forward;
    std::vector<const StageWork*> order;
    for (const StageWork& stage : stages) {
      if (stage.forward_seconds > 0) order.push_back(&stage);
    }
    if (!forward) std::reverse(order.begin(), order.end());
    WayBytes arrived(scenario_.machine);
    double compute = 2 * copies, end = 0;
    std::vector<double> ends;  // what the stages complete may leave from then on
    for (const StageWork* stage : order) {
      arrived.add(forward ? stage->operands : stage->outputs);
      compute += stage->seconds(pass);
      ends.push_back(end);
      if (!stage->parted) end = std::max(end, arrived.seconds());
      end += stage->seconds(pass);
      if (stage->parted) end = std::max(end, arrived.seconds());
      if (!stage->parted) ends.back() = end;
    }
    double longest = std::max(compute, end + (forward ? copies : 0));
    WayBytes leaving(scenario_.machine);
    for (size_t i = order.size(); i-- > 0;) {
      leaving.add(forward ? order[i]->outputs : order[i]->gradients);
      longest = std::max(longest, ends[i] + leaving.seconds());
    }
    return longest;
  }

  const Sketch sketch_;
  const plan::Request& request_;
  const Scenario& scenario_;
  const AttentionTimes& times_;
  int32_t num_stages_ = 1;
  std::vector<double> copied_;  // [rank] bytes read and written, to pack queries or to unpack outputs
};

bool moves_queries(const std::vector<plan::Move>& moves) {
  return std::any_of(moves.begin(), moves.end(), [](const plan::Move& move) { return move.operand == Operand::query; });
}

}  // namespace

double bound_of_draft(const plan::Request& request, const plan::Draft& draft, const Scenario& scenario) {
  Sketch sketch{request, draft.placement, draft.tasks};
  sketch.operands_moved = !draft.moves.empty();
  sketch.queries_moved = moves_queries(draft.moves);
  sketch.keys_relayed = sketch.tiles_parted =
      draft.may_relay && draft.moves.empty() && request.topology.levels.size() > 1;
  return StepBound(sketch, scenario).seconds();
}

double bound_of_plan(const plan::Plan& plan, const Scenario& scenario) {
  Sketch sketch{plan.request, plan.placement, plan.tasks, &plan.needs};
  sketch.operands_moved = !plan.direct;
  sketch.queries_moved = !plan.direct && moves_queries(plan.moves);
  sketch.keys_relayed = !plan.relay_stages.empty();
  return StepBound(sketch, scenario).seconds();
}

}  // namespace evenspan::simulate
