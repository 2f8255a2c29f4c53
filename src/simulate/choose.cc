#include "evenspan/simulate/choose.h"

#include <algorithm>

#include "evenspan/simulate/bound.h"
#include "evenspan/simulate/formula.h"
#include "plan/strategy/strategy.h"

namespace evenspan::simulate {
namespace {

bool formula_takes(const plan::Documents& documents, const Model& model) {
  return model.windows.empty() &&
         std::all_of(documents.all().begin(), documents.all().end(), [](const plan::Document& document) {
           return document.mask.kind == plan::MaskKind::causal || document.mask.kind == plan::MaskKind::full;
         });
}

class Chooser {
 public:
  Chooser(const plan::Request& request, const Scenario& scenario, Timeline timeline)
      : request_(request), scenario_(scenario), timeline_(timeline) {}

  Choice run(const WorkPart& work) {
    const std::vector<Option> planned = planned_options();
    std::vector<std::string> uniform;
    for (const plan::Strategy& strategy : plan::strategies()) {
      if (has_formula(std::string(strategy.name))) uniform.emplace_back(strategy.name);
    }
    const auto total = static_cast<int64_t>(planned.size() + uniform.size());
    int64_t num_seen = 0;
    for (const auto& [strategy, size] : planned) consider_planned(strategy, size, work.part(num_seen++, total));
    for (const std::string& strategy : uniform) consider_uniform(strategy, work.part(num_seen++, total));
    return std::move(choice_);
  }

 private:
  struct Option {
    std::string strategy;
    int32_t ranks_per_group;
  };

  // In the order in which they are looked at.
  std::vector<Option> planned_options() const {
    const int32_t ranks = request_.num_ranks();
    const int32_t node = std::min(ranks, request_.topology.ranks_per_node());
    std::vector<Option> options;
    for (const char* strategy : {"mixed", "hierarchical"}) {
      for (int32_t size = node; size > 1; --size) {
        if (ranks % size == 0) options.push_back({strategy, size});
      }
    }
    for (int32_t size = 2 * node; size <= ranks; size *= 2) {
      if (ranks % size == 0) options.push_back({"mixed", size});
    }
    for (const char* strategy : {"sequence_aware", "local", "disaggregated"}) options.push_back({strategy, 0});
    return options;
  }

  plan::Request with(const std::string& strategy, int32_t ranks_per_group) const {
    plan::Request request = request_;
    request.options.strategy = strategy;
    request.options.ranks_per_group = ranks_per_group;
    return request;
  }

  // Simulated unless its busiest rank alone computes for longer than the best step so far.
  void consider_planned(const std::string& strategy, int32_t ranks_per_group, const WorkPart& work) {
    const plan::Request request = with(strategy, ranks_per_group);
    auto plan = plan::make_plan(request);
    const double bound = busiest_rank_bound(*plan, scenario_);
    if (!choice_.candidates.empty() && bound >= choice_.prediction.step_seconds) {
      choice_.candidates.push_back({strategy, ranks_per_group, false, bound});
      return;
    }
    Prediction prediction = predict(*plan, scenario_, timeline_, work);
    take(request.options, std::move(prediction), std::move(plan));
  }

  void consider_uniform(const std::string& strategy, const WorkPart& work) {
    const plan::Request request = with(strategy, 0);
    const bool few_ranks = request.num_ranks() <= kMostUniformRanks;
    if (!formula_takes(request.documents, scenario_.model)) {
      if (few_ranks) consider_planned(strategy, 0, work);
      return;
    }
    const double bound = bound_by_formula(request, scenario_);
    if (bound >= choice_.prediction.step_seconds) {
      choice_.candidates.push_back({strategy, 0, false, bound});
    } else if (few_ranks) {
      consider_planned(strategy, 0, work);
    } else {
      take(request.options, predict_by_formula(request, scenario_), nullptr);
    }
  }

  void take(const plan::Options& options, Prediction prediction, std::shared_ptr<const plan::Plan> plan) {
    const bool first = choice_.candidates.empty();
    choice_.candidates.push_back({options.strategy, options.ranks_per_group, true, prediction.step_seconds});
    if (!first && prediction.step_seconds >= choice_.prediction.step_seconds) return;
    choice_.options = options;
    choice_.prediction = std::move(prediction);
    choice_.plan = std::move(plan);
  }

  const plan::Request& request_;
  const Scenario& scenario_;
  const Timeline timeline_;
  Choice choice_;
};

}  // namespace

Choice choose(const plan::Request& request, const Scenario& scenario, Timeline timeline, const WorkPart& work) {
  return Chooser(request, scenario, timeline).run(work);
}

}  // namespace evenspan::simulate
