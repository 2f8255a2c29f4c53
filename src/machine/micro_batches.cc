#include "evenspan/machine/micro_batches.h"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <string_view>
#include <utility>

#include "evenspan/batch/machine_cost.h"
#include "evenspan/batch/replicas.h"
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

int64_t capacity_within(const simulate::Model& model, int32_t ranks, const MicroBatchLimits& limits,
                        int32_t num_replicas) {
  int64_t tokens = std::numeric_limits<int64_t>::max();
  if (limits.micro_batch_tokens > 0) tokens = limits.micro_batch_tokens / ranks;
  if (tokens < 1) {
    fail_invalid("[batch] micro_batch_tokens must be at least a token for each of the ", ranks, " ranks, it is ",
                 limits.micro_batch_tokens, "; raise it");
  }
  if (limits.memory_budget > 0) {
    tokens = std::min(tokens, batch::capacity_tokens(model, ranks * num_replicas, limits.memory_budget, kStates));
  }
  return tokens;
}

// Of documents of the step, ascending.
std::vector<int64_t> lengths_of(const std::vector<int64_t>& documents, std::span<const int64_t> lengths) {
  std::vector<int64_t> out;
  for (const int64_t document : documents) out.push_back(lengths[static_cast<size_t>(document)]);
  return out;
}

// Of how often the times of two replicas are asked for. The bound is within a few per cent of the planner's times
// and takes less than a hundredth of its own.
constexpr int kTriesByBound = 200;
constexpr int kTriesByPlan = 8;

}  // namespace

MicroBatchPlanner::MicroBatchPlanner(const simulate::Model& model, int32_t num_ranks,
                                     const std::optional<simulate::Scenario>& scenario, MicroBatchLimits limits,
                                     int32_t num_replicas)
    : num_replicas_(num_replicas),
      limits_(std::move(limits)),
      planner_(&find_repeatable_planner(limits_.planner)),
      cost_(scenario ? batch::machine_cost(*scenario) : batch::operation_cost(model, num_ranks)),
      state_bytes_(batch::state_bytes(model, kStates, num_ranks * num_replicas)),
      token_bytes_(batch::token_bytes(model)) {
  cost_->capacity_tokens = capacity_within(model, num_ranks, limits_, num_replicas);
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
  if (lengths.empty()) return out;
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

double MicroBatchPlanner::weight(int64_t length) const {
  if (cost_) return batch::lower_bound(std::span(&length, 1), *cost_).seconds;
  const double pairs = static_cast<double>(length) * static_cast<double>(length + 1) / 2;
  return weights_.pair_seconds * pairs * weights_.slowdown(length) +
         weights_.token_seconds * static_cast<double>(length);
}

std::vector<MicroBatches> MicroBatchPlanner::divide(std::span<const int64_t> lengths) const {
  if (num_replicas_ == 1) return {plan(lengths)};
  std::vector<double> weights;
  for (size_t i = 0; i < lengths.size(); ++i) {
    check_length(lengths[i], join_text("document ", i));
    weights.push_back(weight(lengths[i]));
  }
  batch::ReplicaParts parts = batch::divide_over_replicas(weights, num_replicas_);
  std::map<std::vector<int64_t>, MicroBatches> cuts;  // by documents
  const auto cut = [&](const std::vector<int64_t>& documents) -> const MicroBatches& {
    const auto [at, is_new] = cuts.try_emplace(documents);
    if (!is_new) return at->second;
    at->second = plan(lengths_of(documents, lengths));
    for (std::vector<int64_t>& of : at->second.documents) {
      for (int64_t& document : of) document = documents[static_cast<size_t>(document)];
    }
    return at->second;
  };
  if (cost_) {
    const auto bound = [&](const std::vector<int64_t>& documents) {
      return batch::lower_bound(lengths_of(documents, lengths), *cost_).seconds;
    };
    batch::even_out(weights, bound, kTriesByBound, &parts);
    batch::even_out(
        weights, [&](const auto& documents) { return cut(documents).seconds; }, kTriesByPlan, &parts);
  } else {
    const auto sum = [&](const std::vector<int64_t>& documents) {
      double seconds = 0;
      for (const int64_t document : documents) seconds += weights[static_cast<size_t>(document)];
      return seconds;
    };
    batch::even_out(weights, sum, kTriesByBound, &parts);
  }
  std::vector<MicroBatches> out;
  for (const std::vector<int64_t>& documents : parts) out.push_back(cut(documents));
  return out;
}

}  // namespace evenspan::machine
