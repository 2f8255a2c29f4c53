#include "evenspan/simulate/explain.h"

#include <algorithm>
#include <array>
#include <map>
#include <numeric>
#include <set>
#include <tuple>

#include "evenspan/plan/program.h"
#include "evenspan/simulate/bound.h"
#include "evenspan/simulate/formula.h"
#include "evenspan/simulate/layers.h"
#include "evenspan/simulate/simulator.h"
#include "plan/strategy/strategy.h"

namespace evenspan::simulate {
namespace {

class Grouping {
 public:
  Grouping(const plan::Plan& plan, const plan::Bound& bound) : plan_(plan), bound_(bound) {
    const auto size = static_cast<size_t>(plan.request.documents.size());
    ranks_.resize(size);
    by_heads_.resize(size, false);
    sent_bytes_.resize(size, 0);
    for (const plan::Task& task : plan.tasks) {
      const auto d = static_cast<size_t>(task.tile.document.value);
      ranks_[d].insert(task.rank.value);
      if (task.tile.heads.size() < plan.request.shape.num_heads) by_heads_[d] = true;
    }
    plan::for_each_transfer(plan, [this](const auto& sent, int64_t bytes) {
      sent_bytes_[static_cast<size_t>(sent.document.value)] += bytes;
    });
  }

  std::vector<DocumentGroup> groups() const {
    std::map<std::tuple<int32_t, Spread, Reason, int32_t>, DocumentGroup> groups;
    for (int64_t d = 0; d < plan_.request.documents.size(); ++d) {
      const DocumentGroup one = group_of(DocumentId(d));
      const auto [at, is_new] = groups.try_emplace({-one.num_ranks, one.spread, one.reason, one.num_nodes}, one);
      DocumentGroup& all = at->second;
      if (is_new) continue;
      ++all.num_documents;
      all.shortest = std::min(all.shortest, one.shortest);
      all.longest = std::max(all.longest, one.longest);
      all.num_tokens += one.num_tokens;
      all.sent_bytes += one.sent_bytes;
      all.least_ranks = std::min(all.least_ranks, one.least_ranks);
      all.most_ranks = std::max(all.most_ranks, one.most_ranks);
    }
    std::vector<DocumentGroup> list;
    list.reserve(groups.size());
    for (const auto& [key, group] : groups) list.push_back(group);
    return list;
  }

 private:
  DocumentGroup group_of(DocumentId id) const {
    const plan::Request& request = plan_.request;
    const auto d = static_cast<size_t>(id.value);
    const plan::Document& document = request.documents[id];
    std::set<int64_t> nodes;
    for (const int64_t rank : ranks_[d]) nodes.insert(rank / request.topology.ranks_per_node());
    DocumentGroup group;
    group.num_ranks = static_cast<int32_t>(ranks_[d].size());
    group.num_nodes = static_cast<int32_t>(nodes.size());
    group.spread = group.num_ranks == 1 ? Spread::whole : by_heads_[d] ? Spread::by_heads : Spread::cut;
    group.num_documents = 1;
    group.shortest = group.longest = group.num_tokens = document.length;
    group.sent_bytes = sent_bytes_[d];
    group.first = id;
    const double work = request.cost.work(num_pairs(document, Span{0, document.length}), document.length);
    group.least_ranks = group.most_ranks = work / bound_.work_seconds;
    group.reason = reason_of(group);
    return group;
  }

  Reason reason_of(const DocumentGroup& group) const {
    if (group.spread == Spread::whole) return Reason::fits;
    const plan::Request& request = plan_.request;
    if (has_formula(request.options.strategy)) return Reason::strategy;
    if (group.most_ranks > bound_.limits.work_max_over_mean) return Reason::work;
    const double mean_tokens = static_cast<double>(request.documents.total_tokens()) / request.num_ranks();
    if (static_cast<double>(group.longest) > mean_tokens * bound_.limits.tokens_max_over_mean) return Reason::tokens;
    return plan::find_strategy(request.options.strategy).traits.splits_all_heads && group.spread == Spread::by_heads
               ? Reason::strategy
               : Reason::balance;
  }

  const plan::Plan& plan_;
  const plan::Bound& bound_;
  std::vector<std::set<int64_t>> ranks_;  // [document]
  std::vector<bool> by_heads_;            // [document]
  std::vector<int64_t> sent_bytes_;       // [document]
};

// Seconds of softmax layers' forward and backward on a rank.
struct LayerUse {
  double kernels = 0, launches = 0, copies = 0, messages = 0;
  double compute() const { return kernels + launches + copies + messages; }
};

void add(const plan::Phase& program, const Schedule& schedule, const PassTimes& times, double num_layers,
         LayerUse* use) {
  for (size_t i = 0; i < schedule.steps.size(); ++i) {
    const TimedOperation& step = schedule.steps[i];
    if (step.exchange >= 0) continue;
    size_t num_segments = 0;
    if (const auto* forward = std::get_if<plan::Attend>(&program.operations[i].body)) {
      num_segments = forward->items.size();
    } else if (const auto* backward = std::get_if<plan::AttendGradient>(&program.operations[i].body)) {
      num_segments = backward->items.size();
    } else {
      use->copies += num_layers * step.seconds;
      continue;
    }
    const double launches = times.operation_seconds + static_cast<double>(num_segments) * times.segment_seconds;
    use->launches += num_layers * launches;
    use->kernels += num_layers * (step.seconds - launches);
  }
}

// What exchanges take from the compute engine, which a simulator's schedules say.
double message_seconds(const Schedule& schedule) {
  double seconds = 0;
  for (const TimedOperation& step : schedule.steps) seconds += step.exchange >= 0 ? step.seconds : 0;
  return seconds;
}

// Forward and backward of a layer of the plan. Adds what `num_layers` of them take to `uses`, [rank].
std::array<Simulator, 2> add_layers(const plan::Plan& plan, const Scenario& scenario, double num_layers,
                                    const WorkPart& work, std::vector<LayerUse>* uses) {
  const auto& [machine, profile, model] = scenario;
  const plan::AttentionShape& shape = plan.request.shape;
  const AttentionTimes& times = attention_times(profile, shape);
  std::vector<Schedule> forward, backward;
  for (size_t r = 0; r < uses->size(); ++r) {
    const plan::RankProgram program = plan::lower(plan, Rank(static_cast<int64_t>(r)));
    forward.push_back(price(program.phase(plan::PhaseKind::forward), shape, profile, times));
    backward.push_back(price(program.phase(plan::PhaseKind::backward), shape, profile, times));
    add(program.phase(plan::PhaseKind::forward), forward.back(), times.forward, num_layers, &(*uses)[r]);
    add(program.phase(plan::PhaseKind::backward), backward.back(), times.backward, num_layers, &(*uses)[r]);
    work.tell(static_cast<int64_t>(r) + 1, static_cast<int64_t>(uses->size()));
  }
  std::array<Simulator, 2> passes{Simulator(machine, std::move(forward)), Simulator(machine, std::move(backward))};
  for (const Simulator& pass : passes) {
    for (size_t r = 0; r < uses->size(); ++r) (*uses)[r].messages += num_layers * message_seconds(pass.schedules()[r]);
  }
  return passes;
}

// Adds the gaps of the rank's compute engine to the level of the exchange that ended each.
void add_waits(const Simulator& simulator, const Machine& machine, Rank rank, std::vector<double>* by_level) {
  const Outcome run = simulator.run({}, Timeline::record);
  const Schedule& schedule = simulator.schedules()[static_cast<size_t>(rank.value)];
  std::vector<double> ends(schedule.exchanges.size(), 0);
  std::vector<const Interval*> computing;
  for (const Interval& interval : run.timeline) {
    if (interval.rank != rank) continue;
    if (interval.engine == Engine::compute) {
      computing.push_back(&interval);
    } else {
      const int32_t exchange = schedule.steps[static_cast<size_t>(interval.step)].exchange;
      ends[static_cast<size_t>(exchange)] = interval.end_seconds;
    }
  }
  const auto farthest = [&](size_t exchange) {
    size_t level = 0;
    for (const auto* list : {&schedule.exchanges[exchange].sends, &schedule.exchanges[exchange].receives}) {
      for (const MessageBytes& transfer : *list) {
        level = std::max(level, machine.topology.level_between(rank, transfer.peer));
      }
    }
    return level;
  };
  const auto last_before = [&](double moment) {  // the exchange that ends last, not after the moment
    size_t last = ends.size();
    for (size_t e = 0; e < ends.size(); ++e) {
      if (ends[e] <= moment && (last == ends.size() || ends[e] >= ends[last])) last = e;
    }
    return last;
  };
  double now = 0;
  const auto wait_until = [&](double moment) {
    if (moment <= now) return;
    const size_t exchange = last_before(moment);
    if (exchange < ends.size()) (*by_level)[farthest(exchange)] += moment - now;
  };
  for (const Interval* interval : computing) {
    wait_until(interval->begin_seconds);
    now = interval->end_seconds;
  }
  wait_until(run.ranks[static_cast<size_t>(rank.value)].finish_seconds);
}

}  // namespace

std::string_view to_string(Spread spread) {
  switch (spread) {
    case Spread::whole:
      return "whole";
    case Spread::cut:
      return "cut";
    case Spread::by_heads:
      return "by heads";
  }
  return "";
}

std::string_view to_string(Reason reason) {
  switch (reason) {
    case Reason::fits:
      return "fits";
    case Reason::strategy:
      return "strategy";
    case Reason::work:
      return "work";
    case Reason::tokens:
      return "tokens";
    case Reason::balance:
      return "balance";
  }
  return "";
}

Explanation explain(const plan::Plan& plan, const Scenario& scenario, const WorkPart& work) {
  const auto& [machine, profile, model] = scenario;
  const plan::AttentionShape& shape = plan.request.shape;
  const int32_t num_ranks = plan.request.num_ranks();

  Explanation out;
  out.prediction = predict(plan, scenario, Timeline::skip, work.part(0, 2));
  const plan::Metrics metrics = plan::measure(plan);
  out.bound = metrics.bound;
  out.keeps_limits = metrics.keeps_limits();
  out.sent_bytes = metrics.sent_bytes_total;
  for (const plan::Move& move : plan.moves) {
    if (move.operand == plan::Operand::key_value) out.key_value_bytes += payload_bytes(move, shape);
  }
  out.groups = Grouping(plan, out.bound).groups();

  std::vector<LayerUse> uses(static_cast<size_t>(num_ranks));
  const LayersOfPlan layers = layers_of_plan(plan, model);
  const auto num_kinds = static_cast<int64_t>(1 + layers.others.size());
  int64_t num_added = 0;
  const auto next = [&] { return work.part(1, 2).part(num_added++, num_kinds); };
  const std::array<Simulator, 2> passes = add_layers(plan, scenario, layers.num_base_layers, next(), &uses);
  for (const auto& [count, other] : layers.others) add_layers(*other, scenario, count, next(), &uses);

  const double seconds_per_token = token_seconds(profile, model);
  double most = 0, sum = 0;
  LayerUse all;
  for (int32_t r = 0; r < num_ranks; ++r) {
    const LayerUse& use = uses[static_cast<size_t>(r)];
    const auto tokens = static_cast<double>(metrics.tokens[static_cast<size_t>(r)]);
    const double compute = use.compute() + seconds_per_token * tokens;
    sum += compute;
    all.kernels += use.kernels;
    all.launches += use.launches;
    all.copies += use.copies;
    all.messages += use.messages;
    if (compute <= most) continue;
    most = compute;
    out.busiest.rank = Rank(r);
    out.busiest.num_tokens = metrics.tokens[static_cast<size_t>(r)];
    out.busiest.attention_seconds = use.kernels + use.launches;
    out.busiest.copy_seconds = use.copies;
    out.busiest.message_seconds = use.messages;
    out.busiest.token_seconds = seconds_per_token * tokens;
  }
  const double tokens = seconds_per_token * static_cast<double>(plan.request.documents.total_tokens()) / num_ranks;
  StepParts& step = out.step;
  step.step_seconds = out.prediction.step_seconds;
  step.lower_bound_seconds = step_lower_bound(plan.request, scenario);
  step.kernel_seconds = all.kernels / num_ranks + tokens - step.lower_bound_seconds;
  step.launch_seconds = all.launches / num_ranks;
  step.copy_seconds = all.copies / num_ranks;
  step.message_seconds = all.messages / num_ranks;
  step.imbalance_seconds = most - sum / num_ranks;
  step.exposed_seconds = step.step_seconds - most;

  out.busiest.wait_seconds_by_level.assign(machine.links.size(), 0);
  for (const Simulator& pass : passes) {
    add_waits(pass, machine, out.busiest.rank, &out.busiest.wait_seconds_by_level);
  }
  return out;
}

}  // namespace evenspan::simulate
