#include "cli/batch_simulation.h"

#include <utility>
#include <vector>

#include "evenspan/plan/plan.h"
#include "evenspan/simulate/planner.h"

namespace evenspan::cli {
namespace {

// Without a strategy.
plan::Request request_of(const simulate::Scenario& scenario, const std::vector<int64_t>& lengths) {
  plan::Request request;
  request.shape = scenario.model.shape;
  request.documents = plan::Documents(lengths, plan::Mask{});
  simulate::weigh(scenario, &request);
  return request;
}

}  // namespace

SimulatedStep simulate_step(const batch::StepPlan& plan, std::span<const int64_t> lengths,
                            const simulate::Scenario& scenario, const WorkPart& work) {
  SimulatedStep out;
  const auto count = static_cast<int64_t>(3 * plan.micro_batches.size());
  int64_t done = 0;
  const auto seconds = [&](const plan::Plan& made) {
    return simulate::predict(made, scenario, simulate::Timeline::skip, work.part(done++, count)).step_seconds;
  };
  for (const batch::MicroBatch& micro_batch : plan.micro_batches) {
    std::vector<int64_t> own;               // lengths
    std::vector<std::vector<Rank>> groups;  // [document]
    batch::for_each_document(micro_batch, [&](std::span<const batch::Share> shares) {
      own.push_back(lengths[static_cast<size_t>(shares.front().document)]);
      std::vector<Rank>& group = groups.emplace_back();
      for (const batch::Share& share : shares) group.push_back(share.rank);
    });
    plan::Request request = request_of(scenario, own);
    request.options.strategy = "ulysses";
    out.placed_seconds += seconds(*plan::make_plan_of_groups(request, groups));
    request.options.strategy = "mixed";
    out.mixed_seconds += seconds(*plan::make_plan(request));
    request.options = {};
    const WorkPart part = work.part(done++, count);
    out.auto_seconds += simulate::choose(request, scenario, simulate::Timeline::skip, part).prediction.step_seconds;
  }
  return out;
}

}  // namespace evenspan::cli
