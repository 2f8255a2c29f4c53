#include "evenspan/machine/micro_batches.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <string_view>
#include <utility>

#include "evenspan/batch/machine_cost.h"
#include "evenspan/core/error.h"

namespace evenspan::machine {
namespace {

constexpr batch::StateLayout kStates = batch::StateLayout::sharded_optimizer;

// Ranks plan for themselves, so a planner must find the same on all of them.
const batch::Planner& find_repeatable_planner(const std::string& name) {
  const batch::Planner& planner = batch::find_planner(name);
  if (planner.options.find("solver_seconds") == std::string_view::npos) return planner;
  fail(ErrorKind::unsupported, "[batch] the planner ", name,
       " uses a solver that a clock stops, so ranks would cut a batch into different micro-batches; give another, "
       "such as auto, or compare plans with evenspan batch");
}

int64_t capacity_within(const simulate::Scenario& scenario, const MicroBatchLimits& limits) {
  const int32_t ranks = scenario.machine.topology.num_ranks;
  int64_t tokens = std::numeric_limits<int64_t>::max();
  if (limits.micro_batch_tokens > 0) tokens = limits.micro_batch_tokens / ranks;
  if (tokens < 1) {
    fail_invalid("[batch] micro_batch_tokens must be at least a token for each of the ", ranks, " ranks, it is ",
                 limits.micro_batch_tokens);
  }
  if (limits.memory_budget > 0) {
    tokens = std::min(tokens, batch::capacity_tokens(scenario, limits.memory_budget, kStates));
  }
  return tokens;
}

}  // namespace

MicroBatchPlanner::MicroBatchPlanner(const simulate::Scenario& scenario, MicroBatchLimits limits)
    : limits_(std::move(limits)),
      planner_(&find_repeatable_planner(limits_.planner)),
      cost_(batch::machine_cost(scenario, capacity_within(scenario, limits_))),
      state_bytes_(batch::state_bytes(scenario.model, kStates, cost_->num_ranks)),
      token_bytes_(batch::token_bytes(scenario.model)) {
  plan(std::vector<int64_t>{1});  // shows whether the planner takes the ranks
}

std::optional<int64_t> MicroBatchPlanner::capacity_tokens() const {
  return cost_ ? std::optional(cost_->capacity_tokens) : std::nullopt;
}

void MicroBatchPlanner::check_length(int64_t tokens, const std::string& what) const {
  if (!cost_ || tokens <= cost_->cluster_tokens()) return;
  const int64_t share = (tokens + cost_->num_ranks - 1) / cost_->num_ranks;
  std::string remedies;
  if (limits_.micro_batch_tokens > 0 && limits_.micro_batch_tokens / cost_->num_ranks < share) {
    remedies +=
        join_text("raise micro_batch_tokens from ", limits_.micro_batch_tokens, " to ", share * cost_->num_ranks);
  }
  const auto bytes = static_cast<int64_t>(state_bytes_ + static_cast<double>(share) * token_bytes_) + 1;
  if (limits_.memory_budget > 0 && limits_.memory_budget < bytes) {
    remedies += join_text(remedies.empty() ? "" : " and ", "raise memory_budget from ", limits_.memory_budget, " to ",
                          bytes, " (or use more ranks)");
  }
  fail(ErrorKind::resource, "[batch] ", what, " has ", tokens, " tokens and a micro-batch holds ",
       cost_->cluster_tokens(), ", ", cost_->capacity_tokens, " on each of ", cost_->num_ranks, " ranks; ", remedies,
       ", or cut the document");
}

MicroBatches MicroBatchPlanner::plan(std::span<const int64_t> lengths) const {
  MicroBatches out;
  if (!cost_) {
    std::vector<int64_t>& all = out.documents.emplace_back(lengths.size());
    std::iota(all.begin(), all.end(), 0);
    return out;
  }
  for (size_t i = 0; i < lengths.size(); ++i) check_length(lengths[i], join_text("document ", i));
  const batch::StepPlan step = batch::plan_step(*planner_, lengths, *cost_, {}, {}).plan;
  for (const batch::MicroBatch& micro_batch : step.micro_batches) {
    std::vector<int64_t>& documents = out.documents.emplace_back();
    batch::for_each_document(
        micro_batch, [&](std::span<const batch::Share> shares) { documents.push_back(shares.front().document.value); });
  }
  out.seconds = batch::price(step, lengths, *cost_).seconds;
  out.bound_seconds = batch::lower_bound(lengths, *cost_).seconds;
  return out;
}

}  // namespace evenspan::machine
