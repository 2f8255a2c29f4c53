#include "evenspan/simulate/formula.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "evenspan/core/error.h"
#include "plan/strategy/mesh.h"
#include "plan/strategy/parts.h"
#include "simulate/even_links.h"
#include "simulate/uniform_work.h"

namespace evenspan::simulate {
namespace {

using plan::Circulation;
using plan::Layout;
using plan::TileKind;

class Formula {
 public:
  // Stops as soon as it knows that the step takes `enough` seconds, with what it knows of them.
  Formula(const plan::Request& request, const Scenario& scenario, double enough)
      : request_(request),
        scenario_(scenario),
        work_(request, attention_times(scenario.profile, request.shape)),
        enough_(enough),
        shape_(request.shape),
        links_(scenario.machine),
        times_(attention_times(scenario.profile, shape_)),
        num_ranks_(request.num_ranks()),
        num_tokens_(static_cast<double>(request.documents.total_tokens())) {
    for (const plan::Document& document : request.documents.all()) {
      if (document.mask.kind == plan::MaskKind::causal || document.mask.kind == plan::MaskKind::full) continue;
      fail(ErrorKind::unsupported, "[simulate] ", request.options.strategy, " on ", num_ranks_,
           " ranks is predicted by a formula, which knows causal and full masks, not ", to_string(document.mask),
           "; use at most ", kMostUniformRanks, " ranks");
    }
    if (!scenario.model.windows.empty()) {
      fail(ErrorKind::unsupported, "[simulate] ", request.options.strategy, " on ", num_ranks_,
           " ranks is predicted by a formula, which knows no layers with windows, and the model has some of ",
           scenario.model.windows.front().window, " keys; use at most ", kMostUniformRanks, " ranks");
    }
    // A head's keys and values, or queries, of the mean rank's tokens.
    head_bytes_ = num_tokens_ / num_ranks_ * shape_.head_dim * static_cast<double>(num_bytes(shape_.element));
  }

  Prediction predict() {
    prediction_.by_formula = true;
    prediction_.step_seconds = find_step();
    measure_work();
    set_bytes(forward_bytes_, &prediction_.forward);
    set_bytes(backward_bytes_, &prediction_.backward);
    const double compute = scenario_.model.num_softmax_layers() * (compute_seconds_[0] + compute_seconds_[1]) +
                           token_seconds(scenario_.profile, scenario_.model) * num_tokens_ / num_ranks_;
    prediction_.idle_fraction = 1 - compute / prediction_.step_seconds;
    return std::move(prediction_);
  }

  // The step alone.
  double find_step() {
    prediction_.strategy = request_.options.strategy;
    forward_bytes_.assign(scenario_.machine.links.size(), 0);
    backward_bytes_ = forward_bytes_;
    tokens_ = work_.tokens();
    switch (work_.uniform().circulation) {
      case Circulation::keys:
      case Circulation::keys_by_heads:
        predict_ring();
        break;
      case Circulation::queries:
        predict_token_ring();
        break;
      case Circulation::gather:
        predict_all_gather();
        break;
      case Circulation::halves:
        predict_halves();
        break;
      case Circulation::tiles:
        predict_tiles();
        break;
      case Circulation::heads:
        predict_ulysses();
        break;
    }
    return step_seconds();
  }

 private:
  static void set_bytes(const std::vector<double>& bytes, PassPrediction* pass) {
    for (const double b : bytes) pass->sent_bytes_by_level.push_back(static_cast<int64_t>(b));
  }

  void measure_work() {
    if (work_.splits_heads()) return;
    const std::vector<double> pairs = work_.pairs();
    double most_work = 0, work = 0;
    for (size_t r = 0; r < pairs.size(); ++r) {
      const double seconds = request_.cost.pair_seconds * pairs[r] + request_.cost.token_seconds * tokens_[r];
      most_work = std::max(most_work, seconds);
      work += seconds;
    }
    prediction_.tokens_max_over_mean = *std::max_element(tokens_.begin(), tokens_.end()) * num_ranks_ / num_tokens_;
    prediction_.work_max_over_mean = most_work * num_ranks_ / work;
  }

  // Rounds with the next one's transfer beside each.
  double rounds(int32_t num_members, int32_t heads, double transfer) {
    double seconds = 0;
    const std::vector<double> attention = work_.round_seconds(Pass::forward, num_members, heads);
    for (int32_t s = 0; s < num_members; ++s) {
      const double attend = attention[static_cast<size_t>(s)];
      seconds += s + 1 < num_members ? std::max(attend, transfer) : attend;
      compute_seconds_[0] += attend;
    }
    return seconds;
  }
  void predict_ring() {
    const bool by_heads = work_.uniform().circulation == Circulation::keys_by_heads;
    const int32_t group = by_heads ? plan::ranks_per_group(request_) : 1;
    const int32_t num_members = num_ranks_ / group;
    const plan::HeadSplit split = plan::head_split(request_, group);
    const int32_t heads = split.heads(split.num_head_parts - 1).size();
    const int32_t kv_heads = shape_.kv_heads(split.heads(split.num_head_parts - 1)).size();
    const double kv_bytes = 2.0 * kv_heads * group * head_bytes_;  // of a round, into a rank
    double before = 0, after = 0, transfer = 0, backward = 0;
    if (by_heads) {
      const double share = (group - 1.0) * head_bytes_;
      before = links_.even(share * (heads + 2.0 * kv_heads), group, &forward_bytes_);
      after = links_.even(share * heads, group, &forward_bytes_);
      links_.even(share * (2.0 * heads + 2.0 * kv_heads), group, &backward_bytes_);
      for (int32_t s = 1; s < num_members; ++s) transfer = links_.outermost(kv_bytes, &forward_bytes_);
      backward = num_members > 1 ? links_.outermost(2 * (num_members - 1) * kv_bytes, &backward_bytes_) : 0;
    } else {
      for (int32_t s = 1; s < num_members; ++s) transfer = links_.hop(kv_bytes, &forward_bytes_);
      backward = links_.even(2 * (num_members - 1) * kv_bytes, num_ranks_, &backward_bytes_);
    }
    prediction_.forward.makespan_seconds = before + rounds(num_members, heads, transfer) + after;
    prediction_.backward.makespan_seconds =
        before + backward_beside(work_.round_seconds(Pass::backward, num_members, heads), backward) + after;
  }

  // Rows are shares of all tokens, between one rank and the next. Of a causal document all chunks but the first travel;
  // a rank's keys are seen by the high chunk of every other rank, in two tiles where it comes before, and by the low
  // chunk of those that come after.
  void predict_token_ring() {
    const double causal = work_.over_documents([](int64_t length, bool causal) { return causal ? length : 0; });
    const double full = num_tokens_ - causal;
    const double travelling = (causal * (1 - 0.5 / num_ranks_) + full) / num_ranks_;
    const double seen = (causal * 0.75 + full) / num_ranks_, seen_twice = (causal * 0.25 + full) / num_ranks_;
    const auto element = static_cast<double>(num_bytes(shape_.element));
    const auto wide = static_cast<double>(num_bytes(plan::accumulation_type(shape_.element)));
    const double width = static_cast<double>(shape_.num_heads) * shape_.head_dim;
    const double partial_bytes = seen * (width + shape_.num_heads) * wide;
    double out = 0, back = 0;
    for (int32_t s = 1; s < num_ranks_; ++s) {
      out = links_.hop(travelling * width * element, &forward_bytes_);
      back = links_.even(partial_bytes, num_ranks_, &forward_bytes_);
    }
    const double operand_bytes = seen * (2 * width * element + 2 * shape_.num_heads * wide);
    const double gradient_bytes = (seen_twice * wide + (seen - seen_twice) * element) * width;
    const double backward =
        links_.even((num_ranks_ - 1) * (operand_bytes + gradient_bytes), num_ranks_, &backward_bytes_);
    prediction_.forward.makespan_seconds = rounds(num_ranks_, shape_.num_heads, out + back) + back;
    prediction_.backward.makespan_seconds =
        backward_beside(work_.round_seconds(Pass::backward, num_ranks_, shape_.num_heads), backward);
  }

  // Of a rank's rows.
  double causal_share() const {
    return work_.over_documents([](int64_t length, bool causal) { return causal ? length : 0; }) / num_tokens_;
  }
  double wide_bytes() const { return static_cast<double>(num_bytes(plan::accumulation_type(shape_.element))); }
  double partial_bytes() const {
    return num_tokens_ / num_ranks_ * shape_.num_heads * (shape_.head_dim + 1.0) * wide_bytes();
  }
  // What gradients of a rank's queries need beside them: those of outputs, log-sum-exps and deltas.
  double query_operand_bytes() const {
    return 2.0 * shape_.num_heads * head_bytes_ + num_tokens_ / num_ranks_ * 2 * shape_.num_heads * wide_bytes();
  }
  // The rounds' attention, with the transfers that are under way meanwhile, [round]; the last ones have nothing beside.
  double overlapped(const std::vector<double>& attention, const std::vector<EvenLinks::Together>& transfers) {
    double seconds = 0;
    for (size_t s = 0; s < transfers.size(); ++s) {
      seconds += std::max(s < attention.size() ? attention[s] : 0, transfers[s].seconds());
    }
    compute_seconds_[0] += std::accumulate(attention.begin(), attention.end(), 0.0);
    return seconds;
  }
  // Operands come straight from home, and gradients go there, beside all rounds but a first one's operands.
  double backward_beside(const std::vector<double>& attention, double transfer) {
    const double compute = std::accumulate(attention.begin(), attention.end(), 0.0);
    compute_seconds_[1] += compute;
    return std::max(compute, transfer) + transfer / (2 * static_cast<double>(attention.size()));
  }

  // In round t a rank gets what it works on from the rank t before it: keys, or queries whose partial output returns.
  // Under a causal mask the first t ranks get queries and the others keys; else all get both.
  void predict_halves() {
    const double causal = causal_share();
    const int32_t last = num_ranks_ / 2;
    const double key_bytes = 2.0 * shape_.num_kv_heads * head_bytes_, query_bytes = shape_.num_heads * head_bytes_;
    const auto shares = [&](int32_t round, int32_t rank) {  // of keys and of queries
      const bool assists = 2 * round < num_ranks_;
      return std::pair((rank >= round ? causal : 0) + 1 - causal,
                       assists ? (rank < round ? causal : 0) + 1 - causal : 0.0);
    };
    const std::array blocks = {work_.round_seconds(Pass::forward, num_ranks_, shape_.num_heads),
                               work_.round_seconds(Pass::backward, num_ranks_, shape_.num_heads)};
    std::array<std::vector<double>, 2> attention;
    std::vector<EvenLinks::Together> transfers(static_cast<size_t>(last) + 2, links_.together());
    EvenLinks::Together backward = links_.together();
    for (int32_t t = 0; t <= last; ++t) {
      for (const Pass pass : {Pass::forward, Pass::backward}) {
        const size_t number = pass == Pass::forward ? 0 : 1;
        const double operation = times_.times(pass).operation_seconds;
        const double one = blocks[number][static_cast<size_t>(t)] - operation;
        const bool both = t > 0 && 2 * t < num_ranks_;
        attention[number].push_back(operation + one * (both ? 2 - causal : 1));
      }
      for (int32_t r = 0; t > 0 && r < num_ranks_; ++r) {
        const Rank rank(r), before((r - t + num_ranks_) % num_ranks_);
        const auto [keys, queries] = shares(t, r);
        transfers[static_cast<size_t>(t) - 1].add(before, rank, keys * key_bytes + queries * query_bytes,
                                                  &forward_bytes_);
        transfers[static_cast<size_t>(t) + 1].add(rank, before, queries * partial_bytes(), &forward_bytes_);
        backward.add(before, rank, keys * key_bytes + queries * query_operand_bytes(), &backward_bytes_);
        backward.add(rank, before, keys * key_bytes + queries * query_bytes, &backward_bytes_);
      }
    }
    prediction_.forward.makespan_seconds = overlapped(attention[0], transfers);
    prediction_.backward.makespan_seconds = backward_beside(attention[1], backward.seconds());
  }

  // All ranks get the same number of queries and keys in the same rounds. Of another rank's causal rows the high
  // chunk's queries and the low chunk's keys are always of use, the others where a rank before it has keys, or queries,
  // there.
  void predict_tiles() {
    const double causal = causal_share();
    std::vector<plan::MeshTile> tiles;
    tiles.reserve(static_cast<size_t>(num_ranks_));
    for (int32_t r = 0; r < num_ranks_; ++r) tiles.push_back(plan::mesh_tile(request_, Rank(r)));
    const auto share_of = [&](const plan::Operands& fetched, const std::vector<plan::Operands>& partners) {
      const bool whole = std::any_of(partners.begin(), partners.end(),
                                     [&](const plan::Operands& other) { return other.home < fetched.home; });
      return whole ? 1 : 1 - 0.5 * causal;
    };
    const plan::MeshTile& shape = tiles.front();
    const size_t num_rounds = shape.queries.size() + shape.keys.size() - 1;
    const double key_bytes = 2.0 * shape_.num_kv_heads * head_bytes_, query_bytes = shape_.num_heads * head_bytes_;
    const auto query_gradient = query_bytes / static_cast<double>(num_bytes(shape_.element)) * wide_bytes();
    const auto key_gradient = key_bytes / static_cast<double>(num_bytes(shape_.element)) * wide_bytes();
    std::vector<double> blocks(num_rounds, 0);
    std::vector<EvenLinks::Together> transfers(num_rounds + 1, links_.together());
    EvenLinks::Together backward = links_.together();
    const auto last_keys = static_cast<size_t>(shape.keys.back().round);
    for (int32_t r = 0; r < num_ranks_; ++r) {
      const plan::MeshTile& tile = tiles[static_cast<size_t>(r)];
      const auto fetch = [&](const plan::Operands& at, double rows, double bytes, double gradient_operands,
                             double gradient) {
        transfers[static_cast<size_t>(at.round) - 1].add(at.home, Rank(r), rows * bytes, &forward_bytes_);
        backward.add(at.home, Rank(r), rows * gradient_operands, &backward_bytes_);
        backward.add(Rank(r), at.home, rows * gradient, &backward_bytes_);
      };
      for (size_t q = 1; q < tile.queries.size(); ++q) {
        const plan::Operands& at = tile.queries[q];
        const double rows = share_of(at, tile.keys);
        fetch(at, rows, query_bytes, query_operand_bytes(), query_gradient);
        transfers[std::max(static_cast<size_t>(at.round), last_keys) + 1].add(Rank(r), at.home, rows * partial_bytes(),
                                                                              &forward_bytes_);
      }
      for (size_t k = 1; k < tile.keys.size(); ++k) {
        fetch(tile.keys[k], share_of(tile.keys[k], tile.queries), key_bytes, key_bytes, key_gradient);
      }
    }
    for (const plan::Operands& queries : shape.queries) {
      for (const plan::Operands& keys : shape.keys) ++blocks[static_cast<size_t>(std::max(queries.round, keys.round))];
    }
    std::array<std::vector<double>, 2> attention;
    for (const Pass pass : {Pass::forward, Pass::backward}) {
      const double operation = times_.times(pass).operation_seconds;
      const double other = work_.round(pass, 1, num_ranks_, shape_.num_heads) - operation;
      for (size_t s = 0; s < num_rounds; ++s) {
        attention[pass == Pass::forward ? 0 : 1].push_back(s == 0 ? work_.round(pass, 0, num_ranks_, shape_.num_heads)
                                                                  : operation + blocks[s] * other);
      }
    }
    prediction_.forward.makespan_seconds = overlapped(attention[0], transfers);
    prediction_.backward.makespan_seconds = backward_beside(attention[1], backward.seconds());
  }

  void predict_ulysses() {
    const plan::HeadSplit split = plan::head_split(request_, num_ranks_);
    const HeadRange own = split.heads(split.num_head_parts - 1);
    const int32_t kv_heads = shape_.kv_heads(own).size();
    const int64_t num_parts = split.num_row_parts;
    const double rows = num_tokens_ / static_cast<double>(num_parts);  // of queries on a rank
    const double away =
        (num_ranks_ - 1.0) / num_ranks_ * shape_.head_dim * static_cast<double>(num_bytes(shape_.element));
    const double query_bytes = away * rows * own.size();
    const double kv_bytes = away * num_tokens_ * 2 * kv_heads;
    for (const Pass pass : {Pass::forward, Pass::backward}) {
      const bool forward = pass == Pass::forward;
      const double attend =
          times_.times(pass).operation_seconds + work_.over_documents([&](int64_t length, bool causal) {
            if (num_parts == 1) {
              return work_.segment(pass, causal ? TileKind::causal : TileKind::full, length, length, own.size());
            }
            // Two pieces from both ends: together they see the keys of all pieces but one.
            const int64_t piece = work_.part(length, 2 * num_parts);
            if (!causal) return 2 * work_.segment(pass, TileKind::full, piece, length, own.size());
            return 2 * work_.segment(pass, TileKind::causal, piece, piece, own.size()) +
                   work_.segment(pass, TileKind::full, piece, (2 * num_parts - 1) * piece, own.size());
          });
      std::vector<double>* bytes = forward ? &forward_bytes_ : &backward_bytes_;
      const double in = links_.even(forward ? query_bytes + kv_bytes : query_bytes, num_ranks_, bytes);
      const double out = links_.even(forward ? query_bytes : query_bytes + kv_bytes, num_ranks_, bytes);
      compute_seconds_[forward ? 0 : 1] = attend;
      (forward ? prediction_.forward : prediction_.backward).makespan_seconds = in + attend + out;
    }
  }

  // A rank's own tiles, where they do not wait for all keys, those with keys of its node, and those with all others.
  struct GatheredTiles {
    double own = 0, near = 0, far = 0;
  };
  GatheredTiles gathered_tiles(Pass pass, const plan::Placement& stream, Rank rank, int32_t node_size) const {
    const bool waits = work_.uniform().layout != Layout::stream;
    const double operation = times_.times(pass).operation_seconds;
    const bool one_node = node_size == num_ranks_;
    GatheredTiles tiles;
    if (!waits) tiles.own = tiles.near = operation;
    if (waits || !one_node) (one_node ? tiles.near : tiles.far) += operation;
    const int32_t first = rank / node_size * node_size;
    for (const auto& [id, span] : work_.gathered_spans(stream, rank)) {
      const plan::Document& document = request_.documents[id];
      const bool causal = document.mask.kind == plan::MaskKind::causal;
      const double diagonal =
          work_.segment(pass, causal ? TileKind::causal : TileKind::full, span.size(), span.size(), shape_.num_heads);
      (waits ? (one_node ? tiles.near : tiles.far) : tiles.own) += diagonal;
      const int64_t elsewhere = plan::needed_keys(document, span).size() - span.size();
      int64_t near = 0;
      for (int32_t r = first; r < std::min(first + node_size, num_ranks_) && !waits; ++r) {
        if (rank == Rank(r)) continue;
        for (const Span& keys : stream.spans_of(Rank(r), id)) {
          near += !causal || keys.begin < span.begin ? keys.size() : 0;
        }
      }
      if (waits && one_node) near = elsewhere;
      tiles.near += work_.segment(pass, TileKind::full, span.size(), near, shape_.num_heads);
      tiles.far += work_.segment(pass, TileKind::full, span.size(), elsewhere - near, shape_.num_heads);
    }
    return tiles;
  }

  void predict_all_gather() {
    const plan::Placement stream = work_.gathered_stream();
    const int32_t node_size = std::min(request_.topology.ranks_per_node(), num_ranks_);
    const int32_t num_nodes = (num_ranks_ + node_size - 1) / node_size;
    struct Arrivals {
      double near = 0, far = 0;  // when the keys of the node and of others are there
    };
    std::array<Arrivals, 2> arrivals;
    const double chunk = 2.0 * shape_.num_kv_heads * head_bytes_;
    auto& [near, far] = arrivals[0];
    near = links_.even((node_size - 1) * chunk, node_size, &forward_bytes_);
    if (num_nodes > 1) {
      near = std::max(near, links_.outermost((num_nodes - 1) * chunk, &forward_bytes_));
      far = near + links_.even((node_size - 1.0) * (num_nodes - 1) * chunk, node_size, &forward_bytes_);
    }
    const double token_bytes =
        2.0 * shape_.num_kv_heads * shape_.head_dim * static_cast<double>(num_bytes(shape_.element));
    const int64_t remote =
        stream.num_ranks() > 0 ? plan::remote_key_tokens(request_, stream) : work_.zigzag_remote_key_tokens();
    const auto needed = static_cast<double>(remote);
    arrivals[1].near = arrivals[1].far =
        links_.even(2 * needed / num_ranks_ * token_bytes, num_ranks_, &backward_bytes_);
    // The rank whose keys from elsewhere take longest comes last; tiles hide the transfer of later ones.
    std::array<double, 2> compute{};
    for (int32_t r = 0; r < num_ranks_; ++r) {
      for (const Pass pass : {Pass::forward, Pass::backward}) {
        const size_t number = pass == Pass::forward ? 0 : 1;
        const Arrivals& there = arrivals[number];
        double& slowest = (number == 0 ? prediction_.forward : prediction_.backward).makespan_seconds;
        const GatheredTiles tiles = gathered_tiles(pass, stream, Rank(r), node_size);
        slowest = std::max(slowest, std::max(std::max(tiles.own, there.near) + tiles.near, there.far) + tiles.far);
        compute[number] += tiles.own + tiles.near + tiles.far;
      }
      if (step_seconds() >= enough_) return;
    }
    for (size_t number : {0, 1}) compute_seconds_[number] = compute[number] / num_ranks_;
  }

  // Layers end to end, on the rank with most tokens.
  double step_seconds() const {
    const double attention = prediction_.forward.makespan_seconds + prediction_.backward.makespan_seconds;
    const double most_tokens = *std::max_element(tokens_.begin(), tokens_.end());
    return scenario_.model.num_softmax_layers() * attention +
           token_seconds(scenario_.profile, scenario_.model) * most_tokens;
  }

  const plan::Request& request_;
  const Scenario& scenario_;
  const UniformWork work_;
  const double enough_;
  const plan::AttentionShape& shape_;
  EvenLinks links_;
  const AttentionTimes& times_;
  int32_t num_ranks_;
  double num_tokens_;
  double head_bytes_ = 0;
  std::vector<double> tokens_;                          // [rank]
  std::vector<double> forward_bytes_, backward_bytes_;  // [level], all ranks together
  std::array<double, 2> compute_seconds_{};             // of a rank in one layer, forward and backward
  Prediction prediction_;
};

// What the formula leaves out may be to a program's advantage.
constexpr double kBoundOfFormula = 0.9;

}  // namespace

bool has_formula(const std::string& strategy) { return plan::find_strategy(strategy).traits.uniform.has_value(); }

Prediction predict_by_formula(const plan::Request& request, const Scenario& scenario) {
  plan::validate(request);
  return Formula(request, scenario, HUGE_VAL).predict();
}

double bound_by_formula(const plan::Request& request, const Scenario& scenario, double enough) {
  plan::validate(request);
  const plan::Uniform uniform = uniform_of(request);
  const auto [quantum, num_rounds] = evenness(request, uniform);
  if (num_rounds == 1) return 0;  // a rank's two chunks are one
  plan::Request even = request;
  if (quantum > 1) {
    std::vector<plan::Document> documents;
    for (plan::Document document : request.documents.all()) {
      document.length -= document.length % quantum;
      if (document.length > 0) documents.push_back(document);
    }
    if (documents.empty()) return 0;
    even.documents = plan::Documents(std::move(documents));
  }
  if (even.documents.total_tokens() < even.num_ranks()) return 0;
  double part = kBoundOfFormula;
  if (num_rounds > 1) part *= 1 - 0.5 / static_cast<double>(num_rounds);  // half of a round's tiles at the other ranks
  const auto bound_on = [&](const Scenario& machine) {
    return part * Formula(even, machine, enough / part).find_step();
  };
  if (uniform.circulation != Circulation::gather) return bound_on(scenario);
  const std::vector<plan::Document>& all = even.documents.all();
  const bool has_full = std::any_of(all.begin(), all.end(), [](const plan::Document& document) {
    return document.mask.kind == plan::MaskKind::full;
  });
  if (has_full) part *= 0.5;  // one segment of all keys starts and rounds up once, the formula's own and others twice
  if (uniform.layout == Layout::zigzag) return bound_on(scenario);
  Scenario without_starts = scenario;  // a rank may need keys of its own, its node or few others only
  for (Link& link : without_starts.machine.links) link.latency_seconds = 0;
  for (AttentionTimes& times : without_starts.profile.attention) {
    times.forward.operation_seconds = times.backward.operation_seconds = 0;
  }
  return bound_on(without_starts);
}

PlannedPrediction plan_and_predict(const plan::Request& request, const Scenario& scenario, Timeline timeline,
                                   const WorkPart& work) {
  if (request.num_ranks() > kMostUniformRanks && has_formula(request.options.strategy)) {
    return {predict_by_formula(request, scenario), nullptr};
  }
  auto plan = plan::make_plan(request);
  return {predict(*plan, scenario, timeline, work), std::move(plan)};
}

}  // namespace evenspan::simulate
