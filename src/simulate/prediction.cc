#include "evenspan/simulate/prediction.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "evenspan/core/error.h"
#include "evenspan/simulate/layers.h"
#include "simulate/equal_shares.h"
#include "simulate/predict_below.h"

namespace evenspan::simulate {
namespace {

// Where every rank is in the step, and what its compute engine has done so far.
class StepClock {
 public:
  StepClock(std::vector<int64_t> tokens, const Machine& machine)
      : tokens_(std::move(tokens)),
        now_(tokens_.size(), 0),
        num_cores_(machine.shares_cores() ? machine.num_cores : 0) {}

  // Token-wise layers. Where ranks share cores, among these layers alone, not with the attention of others.
  void spend(double seconds_per_token) {
    const auto seconds = [&](size_t r) { return seconds_per_token * static_cast<double>(tokens_[r]); };
    for (size_t r = 0; r < now_.size(); ++r) compute_seconds_ += seconds(r);
    if (num_cores_ == 0) {
      for (size_t r = 0; r < now_.size(); ++r) now_[r] += seconds(r);
      return;
    }
    EqualShares cores(num_cores_, 1);
    const auto finish = [&](double now) { now_[static_cast<size_t>(cores.take(now))] = now; };
    std::vector<size_t> order(now_.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return now_[a] < now_[b]; });
    for (const size_t r : order) {
      const double begin = now_[r];
      while (!cores.idle() && cores.first_served() <= begin) finish(cores.first_served());
      cores.add(static_cast<int32_t>(r), seconds(r), begin);
    }
    while (!cores.idle()) finish(cores.first_served());
  }

  // Layers of `before` per token, attention, and `after` per token.
  void layers(const Simulator& attention, int32_t num_layers, double before, double after, const WorkPart& work) {
    std::vector<double> taken, taken_before;
    int32_t num_alike = 0;
    for (int32_t layer = 0; layer < num_layers; ++layer) {
      const std::vector<double> start = now_;
      const double compute_before = compute_seconds_;
      spend(before);
      const Outcome run = attention.run(now_);
      for (size_t r = 0; r < now_.size(); ++r) {
        now_[r] = run.ranks[r].finish_seconds;
        compute_seconds_ += run.ranks[r].compute_seconds;
      }
      spend(after);
      work.tell(layer + 1, num_layers);
      taken_before = std::move(taken);
      taken.assign(now_.size(), 0);
      for (size_t r = 0; r < now_.size(); ++r) taken[r] = now_[r] - start[r];
      num_alike = alike(taken, taken_before) ? num_alike + 1 : 0;
      if (num_alike < 2) continue;
      const double rest = num_layers - layer - 1;
      for (size_t r = 0; r < now_.size(); ++r) now_[r] += rest * taken[r];
      compute_seconds_ += rest * (compute_seconds_ - compute_before);
      return;
    }
  }

  double last() const { return *std::max_element(now_.begin(), now_.end()); }
  double compute_seconds() const { return compute_seconds_; }

 private:
  static bool alike(const std::vector<double>& a, const std::vector<double>& b) {
    if (a.size() != b.size()) return false;
    for (size_t r = 0; r < a.size(); ++r) {
      const double difference = a[r] < b[r] ? b[r] - a[r] : a[r] - b[r];
      if (difference > 1e-6 * a[r]) return false;
    }
    return true;
  }

  std::vector<int64_t> tokens_;  // [rank]
  std::vector<double> now_;      // [rank]
  int32_t num_cores_;            // that the ranks share; 0: none
  double compute_seconds_ = 0;   // all ranks together
};

// A layer's passes on the plan's placement.
struct LayerSimulators {
  Simulator forward, backward;
  int32_t num_layers;
};

double compute_seconds(const Schedule& schedule) {
  double seconds = 0;
  for (const TimedOperation& step : schedule.steps) seconds += step.seconds;
  return seconds;
}

// Lowers the plan rank by rank.
class Lowering {
 public:
  Lowering(const plan::Plan& plan, const Scenario& scenario, int32_t num_layers)
      : plan_(plan),
        scenario_(scenario),
        num_layers_(num_layers),
        times_(attention_times(scenario.profile, plan.request.shape)) {}

  // What the rank computes in all layers of the plan.
  double lower(Rank rank, LiveBytes live_bytes, Prediction* prediction) {
    const plan::AttentionShape& shape = plan_.request.shape;
    const plan::RankProgram program = plan::lower(plan_, rank);
    forward_.push_back(price(program.phase(plan::PhaseKind::forward), shape, scenario_.profile, times_, live_bytes));
    backward_.push_back(price(program.phase(plan::PhaseKind::backward), shape, scenario_.profile, times_, live_bytes));
    prediction->peak_arena_bytes = std::max(prediction->peak_arena_bytes, program.bytes(plan::Lifetime::phase));
    prediction->peak_saved_bytes = std::max(prediction->peak_saved_bytes, program.bytes(plan::Lifetime::step));
    return num_layers_ * (compute_seconds(forward_.back()) + compute_seconds(backward_.back()));
  }

  // REQUIRES: all ranks were lowered.
  LayerSimulators simulators() {
    return {Simulator(scenario_.machine, std::move(forward_)), Simulator(scenario_.machine, std::move(backward_)),
            num_layers_};
  }

 private:
  const plan::Plan& plan_;
  const Scenario& scenario_;
  const int32_t num_layers_;
  const AttentionTimes& times_;
  std::vector<Schedule> forward_, backward_;  // [rank]
};

LayerSimulators simulators_of(const plan::Plan& plan, const Scenario& scenario, const LinearLayers& layers) {
  std::vector<Schedule> forward, backward;
  for (int32_t r = 0; r < plan.request.num_ranks(); ++r) {
    const plan::RankProgram program = plan::lower_linear(plan, layers.shape, scenario.model.states, Rank(r));
    forward.push_back(price_linear(program.phase(plan::PhaseKind::forward), layers.shape, scenario.profile));
    backward.push_back(price_linear(program.phase(plan::PhaseKind::backward), layers.shape, scenario.profile));
  }
  return {Simulator(scenario.machine, std::move(forward)), Simulator(scenario.machine, std::move(backward)),
          layers.count};
}

PassPrediction predict_pass(const Simulator& simulator, Timeline timeline) {
  Outcome run = simulator.run({}, timeline);
  return PassPrediction{run.makespan_seconds, std::move(run.ranks), std::move(run.timeline),
                        simulator.sent_bytes_by_level()};
}

}  // namespace

Prediction predict(const plan::Plan& plan, const Scenario& scenario, Timeline timeline, const WorkPart& work) {
  return std::get<Prediction>(predict_below(HUGE_VAL, plan, scenario, timeline, work));
}

std::variant<Prediction, double> predict_below(double enough, const plan::Plan& plan, const Scenario& scenario,
                                               Timeline timeline, const WorkPart& work) {
  const auto& [machine, profile, model] = scenario;
  Prediction prediction;
  prediction.strategy = plan.request.options.strategy;
  const LayersOfPlan layers = layers_of_plan(plan, model);
  std::vector<LayerSimulators> kinds;  // the plan's, those with windows, linear ones
  kinds.reserve(1 + layers.others.size() + model.linear.size());
  const auto num_kinds = static_cast<int64_t>(kinds.capacity());
  const WorkPart lowering = work.part(0, 2), running = work.part(1, 2);
  const double seconds_per_token = token_seconds(profile, model);
  const auto add_kind = [&](const plan::Plan& of_kind, int32_t num_layers, LiveBytes live_bytes) {
    const WorkPart part = lowering.part(static_cast<int64_t>(kinds.size()), num_kinds);
    Lowering ranks(of_kind, scenario, num_layers);
    for (int32_t r = 0; r < plan.request.num_ranks(); ++r) {
      const double computing = ranks.lower(Rank(r), live_bytes, &prediction) +
                               seconds_per_token * static_cast<double>(plan.placement.num_tokens(Rank(r)));
      part.tell(r + 1, plan.request.num_ranks());
      if (computing >= enough) return computing;
    }
    kinds.push_back(ranks.simulators());
    return 0.0;
  };
  const LiveBytes live_bytes = timeline == Timeline::record ? LiveBytes::count : LiveBytes::skip;
  if (const double bound = add_kind(plan, layers.num_base_layers, live_bytes); bound > 0) return bound;
  for (const auto& [count, other] : layers.others) {
    if (const double bound = add_kind(*other, count, LiveBytes::skip); bound > 0) return bound;
  }
  for (const LinearLayers& linear : model.linear) kinds.push_back(simulators_of(plan, scenario, linear));
  prediction.forward = predict_pass(kinds.front().forward, timeline);
  prediction.backward = predict_pass(kinds.front().backward, timeline);
  for (size_t i = 1; i < kinds.size(); ++i) {
    std::vector<LayerPrediction>& list = i <= layers.others.size() ? prediction.windows : prediction.linear;
    list.push_back({kinds[i].num_layers, predict_pass(kinds[i].forward, Timeline::skip),
                    predict_pass(kinds[i].backward, Timeline::skip)});
  }

  const plan::Metrics metrics = plan::measure(plan);
  prediction.tokens_max_over_mean = metrics.tokens_max_over_mean;
  prediction.work_max_over_mean = metrics.work_max_over_mean;
  const double forward_flop = 1 / profile.forward_flops_per_second;
  const double backward_flop = 2 / profile.backward_flops_per_second;
  const double before = model.before_attention_flops(), after = model.after_attention_flops();
  StepClock clock(metrics.tokens, machine);
  int64_t num_done = 0;
  const auto next = [&] { return running.part(num_done++, 2 * num_kinds); };
  for (const LayerSimulators& kind : kinds) {
    clock.layers(kind.forward, kind.num_layers, before * forward_flop, after * forward_flop, next());
  }
  clock.spend(model.output_layer_flops() * (forward_flop + backward_flop));
  std::reverse(kinds.begin(), kinds.end());
  for (const LayerSimulators& kind : kinds) {
    clock.layers(kind.backward, kind.num_layers, after * backward_flop, before * backward_flop, next());
  }
  prediction.step_seconds = clock.last();
  const auto num_engines = static_cast<double>(machine.shares_cores() ? machine.num_cores : machine.topology.num_ranks);
  prediction.idle_fraction = 1 - clock.compute_seconds() / (prediction.step_seconds * num_engines);
  return prediction;
}

}  // namespace evenspan::simulate
