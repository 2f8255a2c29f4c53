#include "simulate/draft_bound.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "evenspan/simulate/layers.h"
#include "plan/needs.h"
#include "plan/sorting.h"
#include "simulate/pass_bound.h"

namespace evenspan::simulate {
namespace {

using plan::Operand;

// What is known of a plan.
struct Sketch {
  const plan::Request& request;
  const plan::Placement& placement;
  const std::vector<plan::Task>& tasks;
  const std::vector<plan::Need>* needs = nullptr;  // null: not yet found
  bool tiles_parted = false;  // keys of other nodes may yet come by way of ranks of the node, and full tiles be parted
  bool operands_moved = false;  // by the strategy, keys and values
  bool queries_moved = false;   // and queries
};

class StepBound {
 public:
  StepBound(const Sketch& sketch, const Scenario& scenario, double enough)
      : sketch_(sketch),
        request_(sketch.request),
        scenario_(scenario),
        enough_(enough),
        times_(attention_times(scenario.profile, request_.shape)),
        num_layers_(num_layers_of(request_.documents, scenario.model)),
        num_rounds_(num_rounds_of(sketch.tasks)),
        first_crossing_(num_rounds_),
        forward_(scenario.machine, num_rounds_),
        backward_(scenario.machine, num_rounds_),
        copied_(static_cast<size_t>(request_.num_ranks()), 0) {}

  double seconds() {
    const int32_t num_ranks = request_.num_ranks();
    const auto size = static_cast<size_t>(num_ranks);
    const auto tasks = plan::in_buckets(std::span(&sketch_.tasks, 1), size,
                                        [](const plan::Task& task) { return static_cast<size_t>(task.rank); });
    for (int32_t r = 0; r < num_ranks; ++r) add_tiles(Rank(r), tasks[static_cast<size_t>(r)]);
    // What ranks compute is mostly known to be too much before it is found what they wait for.
    const std::vector<double> computing = compute_seconds();
    const double longest = *std::max_element(computing.begin(), computing.end());
    if (longest >= enough_) return longest;
    exchanged_.resize(static_cast<size_t>(num_rounds_) * size);
    if (sketch_.needs != nullptr) {
      const auto needs = plan::in_buckets(std::span(sketch_.needs, 1), size, [](const plan::Need& need) {
        return static_cast<size_t>(need.move.to.value);
      });
      for (int32_t r = 0; r < num_ranks; ++r) {
        find_tiles(tasks[static_cast<size_t>(r)]);
        add_needs(Rank(r), needs[static_cast<size_t>(r)]);
      }
    } else {
      plan::NeedFinder finder(request_, sketch_.placement);
      std::vector<plan::Need> needs;  // of one rank after another
      for (int32_t r = 0; r < num_ranks; ++r) {
        find_tiles(tasks[static_cast<size_t>(r)]);
        needs.clear();
        finder.append(Rank(r), tasks[static_cast<size_t>(r)], &needs);
        add_needs(Rank(r), needs);
      }
    }
    for (int32_t r = 0; r < num_ranks; ++r) {
      // Each pass packs what it sends and unpacks what comes home.
      const double copies = copied_[static_cast<size_t>(r)] / scenario_.profile.memory_bytes_per_second;
      for (PassBound* pass : {&forward_, &backward_}) pass->add_compute(r, 2 * copies);
      forward_.unpack(r, copies);
    }
    forward_.close();
    backward_.close();
    return step_seconds();
  }

 private:
  static int32_t num_rounds_of(const std::vector<plan::Task>& tasks) {
    int32_t num_rounds = 1;
    for (const plan::Task& task : tasks) num_rounds = std::max(num_rounds, task.round + 1);
    return num_rounds;
  }

  bool crosses_nodes(Rank a, Rank b) const {
    const int32_t node = request_.topology.ranks_per_node();
    return a / node != b / node;
  }

  // Whether the tile reads keys of another node that may come by way of other ranks.
  bool reads_other_nodes(const plan::Task& task) const {
    if (!sketch_.tiles_parted) return false;
    for (const auto& [home, keys] : sketch_.placement.homes(task.tile.document, task.tile.keys)) {
      if (crosses_nodes(home, task.rank)) return true;
    }
    return false;
  }

  // Whether make_plan() may part the tile.
  bool is_parted(const plan::Task& task) const {
    return task.tile.kind == plan::TileKind::full && reads_other_nodes(task);
  }

  // Backward runs the rounds in reverse.
  int32_t backward_round(int32_t round) const { return num_rounds_ - 1 - round; }

  void add_tiles(Rank rank, std::span<const plan::Task> tasks) {
    struct RoundWork {
      double seconds = 0, parted_seconds = 0;
    };
    std::vector<RoundWork> rounds(2 * static_cast<size_t>(num_rounds_));  // [round][pass]
    for (const plan::Task& task : tasks) {
      const bool reads_others = reads_other_nodes(task);
      if (reads_others) first_crossing_ = std::min(first_crossing_, task.round);
      const bool parted = reads_others && task.tile.kind == plan::TileKind::full;
      for (const Pass pass : {Pass::forward, Pass::backward}) {
        RoundWork& round = rounds[2 * static_cast<size_t>(task.round) + (pass == Pass::forward ? 0 : 1)];
        if (round.seconds == 0) round.seconds = times_.times(pass).operation_seconds;
        const double seconds = tile_seconds(pass, task.tile, parted);
        round.seconds += seconds;
        if (parted) round.parted_seconds += seconds;
      }
    }
    // Parts of a round stand in its order, those whose keys come later last; so in backward they run first, when what
    // the others wait for need not have come.
    for (int32_t s = 0; s < num_rounds_; ++s) {
      const RoundWork& forward = rounds[2 * static_cast<size_t>(s)];
      forward_.compute(rank.value, s, forward.seconds, forward.seconds, forward.parted_seconds);
      const RoundWork& backward = rounds[2 * static_cast<size_t>(s) + 1];
      backward_.compute(rank.value, backward_round(s), backward.seconds, backward.seconds - backward.parted_seconds, 0);
    }
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

  struct TileOfRank {
    const plan::Tile* tile;
    int32_t round;
    bool parted;
  };
  void find_tiles(std::span<const plan::Task> tasks) {
    tiles_.clear();
    for (const plan::Task& task : tasks) tiles_.push_back({&task.tile, task.round, is_parted(task)});
    std::stable_sort(tiles_.begin(), tiles_.end(),
                     [](const TileOfRank& a, const TileOfRank& b) { return a.tile->document < b.tile->document; });
  }
  std::span<const TileOfRank> tiles_of(DocumentId document) const {
    const auto less = [](const TileOfRank& tile, DocumentId id) { return tile.tile->document < id; };
    const auto first = std::lower_bound(tiles_.begin(), tiles_.end(), document, less);
    auto last = first;
    while (last != tiles_.end() && last->tile->document == document) ++last;
    return {first, last};
  }

  // Whether all of what is needed is surely there before any part of the round runs.
  bool comes_first(const plan::Move& move) const {
    if (!sketch_.tiles_parted) return true;
    const bool is_key = move.operand == Operand::key_value;
    if (is_key && !crosses_nodes(move.from, move.to)) return true;
    const auto reads = [&](const plan::Tile& tile) {
      return is_key ? request_.shape.kv_heads(tile.heads) == move.heads && tile.keys.overlaps(move.rows)
                    : tile.heads == move.heads && tile.queries.contains(move.rows);
    };
    const auto tiles = tiles_of(move.document);
    return std::any_of(tiles.begin(), tiles.end(), [&](const TileOfRank& tile) {
      return !tile.parted && tile.round == move.round && reads(*tile.tile);
    });
  }

  // A round up to which outputs of all these queries stay on the rank.
  int32_t last_round(const plan::Move& queries) const {
    int32_t last = queries.round;
    for (const TileOfRank& tile : tiles_of(queries.document)) {
      const bool adds = tile.tile->heads == queries.heads && tile.tile->queries.contains(queries.rows);
      if (adds) last = std::max(last, tile.round);
    }
    return last;
  }

  // Whether keys may come by way of another rank. What has to be there when the first round begins that reads keys of
  // other nodes is passed on by nobody, since nobody has it before.
  bool may_be_relayed(const plan::Need& need, bool first) const {
    if (!sketch_.tiles_parted) return need.via != Rank(-1);
    return crosses_nodes(need.move.from, need.move.to) && !(first && need.move.round == first_crossing_);
  }

  // What a rank gets from another one's home for a round and sends back, in bytes.
  struct Exchanged {
    double operands = 0;         // that the round is the first to read
    double late_operands = 0;    // the same, where a part of the round may do without them
    double queries = 0;          // of rows that the round is the last to read, or nearly
    double gradients = 0;        // of what the round is the first to read
    double early_gradients = 0;  // the same, where a part of the round may be enough
    bool any() const { return operands + late_operands + queries + gradients + early_gradients > 0; }
  };

  void add_needs(Rank rank, std::span<const plan::Need> needs) {
    const auto num_ranks = static_cast<size_t>(request_.num_ranks());
    used_.clear();
    const auto at = [&](int32_t round, Rank home) -> Exchanged& {
      const size_t index = static_cast<size_t>(round) * num_ranks + static_cast<size_t>(home.value);
      if (!exchanged_[index].any()) used_.push_back(index);
      return exchanged_[index];
    };
    for (const plan::Need& need : needs) {
      const plan::Move& move = need.move;
      const auto bytes = static_cast<double>(plan::payload_bytes(move, request_.shape));
      const bool first = comes_first(move);
      Exchanged& exchanged = at(move.round, move.from);
      (first ? exchanged.gradients : exchanged.early_gradients) += bytes;
      if (move.operand == Operand::key_value) {
        if (!sketch_.operands_moved && !may_be_relayed(need, first)) exchanged.operands += bytes;
        continue;
      }
      if (!sketch_.queries_moved) (first ? exchanged.operands : exchanged.late_operands) += bytes;
      at(last_round(move), move.from).queries += bytes;
      // Read and written: a row alone is dense, and so are all heads of any rows.
      if (sketch_.queries_moved || move.rows.size() == 1 || move.heads.size() == request_.shape.num_heads) continue;
      copied_[static_cast<size_t>(move.from.value)] += 2 * bytes;
    }
    for (const size_t index : used_) {
      const auto round = static_cast<int32_t>(index / num_ranks);
      const Rank home(static_cast<int64_t>(index % num_ranks));
      const size_t level = request_.topology.level_between(home, rank);
      const Exchanged& bytes = exchanged_[index];
      const int32_t reversed = backward_round(round);
      if (bytes.operands > 0) forward_.arrive(round, home, rank, level, bytes.operands);
      if (bytes.late_operands > 0) forward_.arrive(round + 1, home, rank, level, bytes.late_operands);
      if (bytes.queries > 0) {
        forward_.leave_before(round + 1, rank, home, level, bytes.queries);
        backward_.arrive(reversed, home, rank, level, bytes.queries);
      }
      if (bytes.gradients > 0) backward_.leave_before(reversed + 1, rank, home, level, bytes.gradients);
      if (bytes.early_gradients > 0) backward_.leave_before(reversed, rank, home, level, bytes.early_gradients);
      exchanged_[index] = {};
    }
  }

  double num_tokens(size_t rank) const {
    return static_cast<double>(sketch_.placement.num_tokens(Rank(static_cast<int64_t>(rank))));
  }

  // [rank], of the step.
  std::vector<double> compute_seconds() const {
    const double seconds_per_token = token_seconds(scenario_.profile, scenario_.model);
    std::vector<double> seconds;
    seconds.reserve(copied_.size());
    for (size_t r = 0; r < copied_.size(); ++r) {
      seconds.push_back(seconds_per_token * num_tokens(r) +
                        num_layers_ * (forward_.compute_seconds(r) + backward_.compute_seconds(r)));
    }
    return seconds;
  }

  // All layers of a pass.
  struct Layers {
    PassBound* pass;
    double before, after;       // token-wise, seconds of a token
    std::vector<double> alone;  // [rank] seconds of a layer, wherever the other ranks are
  };
  Layers layers_of(PassBound* pass, double before, double after) const {
    Layers layers{pass, before, after, pass->seconds_alone()};
    for (size_t r = 0; r < layers.alone.size(); ++r) layers.alone[r] += (before + after) * num_tokens(r);
    return layers;
  }
  void run_layer(const Layers& layers, std::vector<double>* now) const {
    for (size_t r = 0; r < now->size(); ++r) (*now)[r] += layers.before * num_tokens(r);
    layers.pass->run(now);
    for (size_t r = 0; r < now->size(); ++r) (*now)[r] += layers.after * num_tokens(r);
  }

  // Layers one after another, each rank going on from where it ended the one before. predict() may let the layers after
  // the first three take each rank what the last of them took, though one that is faster than others would wait for
  // them at last: of those only what a rank takes alone is sure, and what the slowest of some ranks takes.
  double step_seconds() {
    const Model& model = scenario_.model;
    const double forward_flop = 1 / scenario_.profile.forward_flops_per_second;
    const double backward_flop = 2 / scenario_.profile.backward_flops_per_second;
    const double before = model.before_attention_flops(), after = model.after_attention_flops();
    const double others =
        token_seconds(scenario_.profile, model) - num_layers_ * (before + after) * (forward_flop + backward_flop);
    const Layers forward = layers_of(&forward_, before * forward_flop, after * forward_flop);
    const Layers backward = layers_of(&backward_, after * backward_flop, before * backward_flop);
    const int32_t num_exact = std::min(num_layers_, kExactLayers);
    std::vector<double> now(copied_.size(), 0);
    for (int32_t layer = 0; layer < num_exact; ++layer) run_layer(forward, &now);
    for (size_t r = 0; r < now.size(); ++r) {
      now[r] += (num_layers_ - num_exact) * forward.alone[r] + others * num_tokens(r);
    }
    const auto end = [&](int32_t layer) {
      double last = 0;
      for (size_t r = 0; r < now.size(); ++r) last = std::max(last, now[r] + (num_layers_ - layer) * backward.alone[r]);
      return last;
    };
    double longest = end(0);
    std::vector<std::vector<double>> ends;  // of the last exact layers but one
    for (int32_t layer = 1; layer <= num_exact && longest < enough_; ++layer) {
      run_layer(backward, &now);
      longest = std::max(longest, end(layer));
      if (layer + 1 >= kExactLayers) ends.push_back(now);
    }
    if (num_layers_ == num_exact || longest >= enough_) return longest;
    return std::max(longest, end_of_slowest(backward, std::move(ends)));
  }

  // When the slowest of some ranks ends the last layer. `ends`: when they end layers kExactLayers - 1 and kExactLayers,
  // [layer][rank].
  //
  // Let ranks begin a layer at z, and each end it at least m later though nobody else is there. Wherever they begin,
  // the one that is most behind z takes at least m: so that one does where each goes on taking what it took.
  double end_of_slowest(const Layers& layers, std::vector<std::vector<double>> ends) const {
    const size_t num_run = static_cast<size_t>(std::min(num_layers_, kSettledLayers) - kExactLayers);
    for (size_t layer = 0; layer < num_run; ++layer) {
      ends.push_back(ends.back());
      run_layer(layers, &ends.back());
    }
    const std::vector<double> after = std::move(ends.back());
    ends.pop_back();
    const std::vector<double>& before = ends.back();
    double most = 0;
    for (size_t r = 0; r < after.size(); ++r) most = std::max(most, after[r] - before[r]);
    double longest = 0;
    for (const double slow : {0.999, 0.99, 0.95}) {
      std::vector<char> chosen(after.size(), 0);
      std::vector<double> now(after.size(), -HUGE_VAL);
      for (size_t r = 0; r < after.size(); ++r) {
        if (after[r] - before[r] < slow * most) continue;
        chosen[r] = 1;
        now[r] = before[r];
      }
      run_layer(layers, &now);
      double least = HUGE_VAL;  // m
      for (size_t r = 0; r < after.size(); ++r) {
        if (chosen[r] != 0) least = std::min(least, now[r] - before[r]);
      }
      // Layers up to any of these may have been exact.
      double end = HUGE_VAL;
      for (size_t i = 0; i < ends.size(); ++i) {
        const auto num_left = static_cast<double>(num_layers_ - kExactLayers + 1) - static_cast<double>(i);
        for (size_t r = 0; r < after.size(); ++r) {
          if (chosen[r] != 0) end = std::min(end, ends[i][r] + num_left * least);
        }
      }
      longest = std::max(longest, end);
    }
    return longest;
  }

  // Layers that predict() simulates before it lets others take as long as the last one, at least; and after how many
  // their times have mostly settled.
  static constexpr int32_t kExactLayers = 3, kSettledLayers = 8;

  const Sketch sketch_;
  const plan::Request& request_;
  const Scenario& scenario_;
  const double enough_;
  const AttentionTimes& times_;
  const int32_t num_layers_, num_rounds_;
  int32_t first_crossing_;  // the first round that reads keys of other nodes that may be relayed; behind the last: none
  std::vector<TileOfRank> tiles_;  // of the rank whose needs are added, by document
  PassBound forward_, backward_;
  std::vector<double> copied_;        // [rank] bytes read and written, to pack queries or to unpack outputs
  std::vector<Exchanged> exchanged_;  // [round][home], of the rank whose needs are added
  std::vector<size_t> used_;          // of exchanged_
};

bool moves_queries(const std::vector<plan::Move>& moves) {
  return std::any_of(moves.begin(), moves.end(), [](const plan::Move& move) { return move.operand == Operand::query; });
}

}  // namespace

double bound_of_draft(const plan::Request& request, const plan::Draft& draft, const Scenario& scenario, double enough) {
  Sketch sketch{request, draft.placement, draft.tasks};
  sketch.operands_moved = !draft.moves.empty();
  sketch.queries_moved = moves_queries(draft.moves);
  sketch.tiles_parted = draft.may_relay && draft.moves.empty() && request.topology.levels.size() > 1;
  return StepBound(sketch, scenario, enough).seconds();
}

double bound_of_plan(const plan::Plan& plan, const Scenario& scenario, double enough) {
  Sketch sketch{plan.request, plan.placement, plan.tasks, &plan.needs};
  sketch.operands_moved = !plan.direct;
  sketch.queries_moved = !plan.direct && moves_queries(plan.moves);
  return StepBound(sketch, scenario, enough).seconds();
}

}  // namespace evenspan::simulate
