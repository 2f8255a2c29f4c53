#include "cli/batch_simulation.h"

#include <utility>
#include <vector>

#include "evenspan/plan/plan.h"
#include "evenspan/simulate/profile.h"

namespace evenspan::cli {
namespace {

// The documents of a micro-batch, and the ranks of each.
struct Placed {
  std::vector<int64_t> lengths;
  std::vector<std::vector<Rank>> groups;
};

Placed placed_by(const batch::MicroBatch& micro_batch, std::span<const int64_t> lengths) {
  Placed out;
  const batch::Share* last = nullptr;
  for (const batch::Share& share : micro_batch.shares) {  // sorted by document
    if (last == nullptr || last->document != share.document) {
      out.lengths.push_back(lengths[static_cast<size_t>(share.document)]);
      out.groups.emplace_back();
    }
    out.groups.back().push_back(share.rank);
    last = &share;
  }
  return out;
}

plan::Request request_of(const std::vector<int64_t>& lengths, const simulate::Scenario& scenario,
                         const char* strategy) {
  plan::Request request;
  request.documents = plan::Documents(lengths, plan::Mask{});
  request.shape = scenario.model.shape;
  request.topology = scenario.machine.topology;
  request.cost = simulate::cost_model(scenario.profile, scenario.model);
  request.options.strategy = strategy;
  return request;
}

}  // namespace

SimulatedStep simulate_step(const batch::StepPlan& plan, std::span<const int64_t> lengths,
                            const simulate::Scenario& scenario, const WorkPart& work) {
  SimulatedStep out;
  const auto count = static_cast<int64_t>(2 * plan.micro_batches.size());
  int64_t done = 0;
  const auto seconds = [&](const plan::Plan& made) {
    return simulate::predict(made, scenario, simulate::Timeline::skip, work.part(done++, count)).step_seconds;
  };
  for (const batch::MicroBatch& micro_batch : plan.micro_batches) {
    const Placed placed = placed_by(micro_batch, lengths);
    out.placed_seconds +=
        seconds(*plan::make_plan_of_groups(request_of(placed.lengths, scenario, "ulysses"), placed.groups));
    out.mixed_seconds += seconds(*plan::make_plan(request_of(placed.lengths, scenario, "mixed")));
  }
  return out;
}

}  // namespace evenspan::cli
