#include "evenspan/simulate/choose.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "evenspan/simulate/bound.h"
#include "evenspan/simulate/formula.h"
#include "plan/strategy/strategy.h"
#include "simulate/draft_bound.h"
#include "simulate/predict_below.h"

namespace evenspan::simulate {
namespace {

bool formula_takes(const plan::Documents& documents, const Model& model) {
  return model.windows.empty() &&
         std::all_of(documents.all().begin(), documents.all().end(), [](const plan::Document& document) {
           return document.mask.kind == plan::MaskKind::causal || document.mask.kind == plan::MaskKind::full;
         });
}

// A candidate that may have a shorter step than the best so far.
struct OpenCandidate {
  plan::Request request;
  double bound = 0;                        // of its step: none, then that of its draft, then that of its plan
  std::optional<plan::Draft> draft;        // until there is the plan
  std::shared_ptr<const plan::Plan> plan;  // null before
};

class Chooser {
 public:
  Chooser(const plan::Request& request, const Scenario& scenario, Timeline timeline, const WorkPart& work)
      : request_(request), scenario_(scenario), timeline_(timeline), work_(work) {}

  Choice run() {
    std::vector<OpenCandidate> planned = planned_candidates();
    std::vector<plan::Request> uniform;
    for (const plan::Strategy& strategy : plan::strategies()) {
      if (strategy.traits.uniform.has_value()) uniform.push_back(with(std::string(strategy.name), 0));
    }
    num_candidates_ = static_cast<int64_t>(planned.size() + uniform.size());
    search(std::move(planned));
    const bool few_ranks = request_.num_ranks() <= kMostUniformRanks;
    std::vector<OpenCandidate> open;
    open.reserve(uniform.size());
    if (!formula_takes(request_.documents, scenario_.model)) {
      for (plan::Request& request : uniform) open.push_back({std::move(request), 0, std::nullopt, nullptr});
      if (few_ranks) search(std::move(open));
      return std::move(choice_);
    }
    for (plan::Request& request : uniform) {
      const double bound = bound_by_formula(request, scenario_, choice_.prediction.step_seconds);
      if (few_ranks || bound >= choice_.prediction.step_seconds) {
        open.push_back({std::move(request), bound, std::nullopt, nullptr});
      } else {
        take(request.options, predict_by_formula(request, scenario_), nullptr);
      }
    }
    search(std::move(open));
    return std::move(choice_);
  }

 private:
  std::vector<OpenCandidate> planned_candidates() const {
    const int32_t ranks = request_.num_ranks();
    const int32_t node = std::min(ranks, request_.topology.ranks_per_node());
    std::vector<OpenCandidate> planned;
    // The table lists what plans most last, and that is tried first.
    const auto table = plan::strategies();
    for (auto strategy = table.rbegin(); strategy != table.rend(); ++strategy) {
      if (strategy->traits.uniform.has_value()) continue;
      const plan::Variants variants = strategy->traits.variants;
      const auto add = [&](int32_t size) {
        if (ranks % std::max(size, 1) != 0) return;
        planned.push_back({with(std::string(strategy->name), size), 0, std::nullopt, nullptr});
      };
      if (variants == plan::Variants::one) add(0);
      for (int32_t size = node; variants != plan::Variants::one && size > 1; --size) add(size);
      for (int32_t size = 2 * node; variants == plan::Variants::groups && size <= ranks; size *= 2) add(size);
    }
    return planned;
  }

  plan::Request with(const std::string& strategy, int32_t ranks_per_group) const {
    plan::Request request = request_;
    request.options.strategy = strategy;
    request.options.ranks_per_group = ranks_per_group;
    return request;
  }

  // Simulates the first candidate, unless there is a step already, since it is mostly the best or near it. Then goes on
  // with the one that has the least bound, of equals the first, until none is below the best step.
  void search(std::vector<OpenCandidate> open) {
    while (!open.empty()) {
      auto next = open.begin();
      if (choice_.candidates.empty()) {
        next->plan = plan::make_plan(next->request);
      } else {
        const auto less = [](const OpenCandidate& a, const OpenCandidate& b) { return a.bound < b.bound; };
        next = std::min_element(open.begin(), open.end(), less);
        if (next->bound >= choice_.prediction.step_seconds) break;
      }
      if (next->plan == nullptr) {
        raise_bound(&*next);
        continue;
      }
      const WorkPart part = work_.part(num_simulated_++, num_candidates_);
      auto found = predict_below(best_step(), *next->plan, scenario_, timeline_, part);
      if (const double* bound = std::get_if<double>(&found)) {
        next->bound = *bound;
        continue;
      }
      take(next->request.options, std::get<Prediction>(std::move(found)), std::move(next->plan));
      open.erase(next);
    }
    for (const OpenCandidate& left_out : open) {
      const plan::Options& options = left_out.request.options;
      choice_.candidates.push_back({options.strategy, options.ranks_per_group, false, left_out.bound});
    }
  }

  // So far.
  double best_step() const { return choice_.candidates.empty() ? HUGE_VAL : choice_.prediction.step_seconds; }

  void raise_bound(OpenCandidate* candidate) const {
    const plan::Request& request = candidate->request;
    double bound = 0;
    if (!candidate->draft.has_value()) {
      candidate->draft = plan::find_strategy(request.options.strategy).write(request);
      bound = bound_of_draft(request, *candidate->draft, scenario_, best_step());
    } else {
      candidate->plan = plan::make_plan(request, std::move(*candidate->draft));
      candidate->draft.reset();
      bound = bound_of_plan(*candidate->plan, scenario_, best_step());
    }
    candidate->bound = std::max(candidate->bound, bound);
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
  const WorkPart& work_;
  int64_t num_candidates_ = 0, num_simulated_ = 0;
  Choice choice_;
};

}  // namespace

Choice choose(const plan::Request& request, const Scenario& scenario, Timeline timeline, const WorkPart& work) {
  return Chooser(request, scenario, timeline, work).run();
}

}  // namespace evenspan::simulate
