#include <nlohmann/json.hpp>

#include "cli/batch_output.h"

namespace evenspan::cli {
namespace {

using Json = nlohmann::ordered_json;

Json micro_batch_json(const batch::MicroBatch& batch, const batch::MicroBatchCost& cost) {
  Json shares = Json::array();
  for (const batch::Share& share : batch.shares) {
    shares.push_back({share.document.value, share.rank.value, share.tokens});
  }
  return {{"seconds", cost.seconds},           {"exchange_seconds", cost.exchange_seconds},
          {"rank_seconds", cost.rank_seconds}, {"rank_exchange_seconds", cost.rank_exchange_seconds},
          {"rank_tokens", cost.rank_tokens},   {"shares", std::move(shares)}};
}

Json plan_json(const BatchReport& report, size_t p, const BatchOutcome& outcome) {
  Json out = {{"planner", report.planners[p]->name},
              {"seconds", outcome.cost.seconds},
              {"exchange_fraction", outcome.cost.exchange_fraction},
              {"idle_fraction", outcome.cost.idle_fraction},
              {"peak_tokens", outcome.cost.peak_tokens},
              {"programs", outcome.planned.num_programs},
              {"proven_programs", outcome.planned.num_proven}};
  if (report.has_times) out["planning_seconds"] = outcome.planning_seconds;
  if (outcome.simulated) {
    out["placed_seconds"] = outcome.simulated->placed_seconds;
    out["mixed_seconds"] = outcome.simulated->mixed_seconds;
    out["auto_seconds"] = outcome.simulated->auto_seconds;
  }
  Json& batches = out["micro_batches"] = Json::array();
  for (size_t b = 0; b < outcome.planned.plan.micro_batches.size(); ++b) {
    batches.push_back(micro_batch_json(outcome.planned.plan.micro_batches[b], outcome.cost.micro_batches[b]));
  }
  return out;
}

Json step_json(const BatchReport& report, const BatchStep& step) {
  Json plans = Json::array();
  for (size_t p = 0; p < step.outcomes.size(); ++p) plans.push_back(plan_json(report, p, step.outcomes[p]));
  return {{"step", step.batch.step},
          {"first_document", step.batch.first_document},
          {"lengths", step.batch.lengths},
          {"lower_bound",
           {{"seconds", step.bound.seconds},
            {"work_seconds", step.bound.work_seconds},
            {"exchange_seconds", step.bound.exchange_seconds},
            {"least_micro_batches", step.bound.least_micro_batches}}},
          {"plans", std::move(plans)}};
}

Json head_json(const BatchReport& report) {
  const BatchMachine& machine = report.machine;
  Json out = Json::object();
  if (machine.model) {
    const simulate::Model& model = *machine.model;
    out = {{"profile", machine.name},
           {"layers", model.num_layers},
           {"heads", model.shape.num_heads},
           {"kv_heads", model.shape.num_kv_heads},
           {"head_dim", model.shape.head_dim},
           {"dtype", to_string(model.shape.element)},
           {"memory_bytes", machine.memory_bytes},
           {"states", machine.states},
           {"state_bytes", machine.state_bytes},
           {"token_bytes", machine.token_bytes}};
  } else {
    out = {{"constants", machine.name},
           {"context_limit", machine.context_limit},
           {"left_out_long_documents", machine.num_long_documents}};
  }
  out["ranks"] = machine.cost.num_ranks;
  out["ranks_per_node"] = machine.cost.ranks_per_node;
  out["capacity_tokens"] = machine.cost.capacity_tokens;
  out["square_seconds"] = machine.cost.square_seconds;
  for (const auto& [keys, pair_seconds] : machine.cost.windows) {
    out["windows"].push_back({{"keys", keys}, {"pair_seconds", pair_seconds}});
  }
  out["token_seconds"] = machine.cost.token_seconds;
  out["micro_batch_seconds"] = machine.cost.micro_batch_seconds;
  out["exchange_seconds"] = machine.cost.exchange_seconds;
  out["num_steps"] = report.batches.num_steps;
  out["left_out_last_documents"] = report.batches.num_left_documents;
  return out;
}

}  // namespace

// A line for each step: values of shares on lines of their own would be most of a large file, and all steps at once
// most of the memory.
std::string batch_json(const BatchReport& report) {
  std::string text = head_json(report).dump(2);
  text.resize(text.rfind("\n}"));
  text += ",\n  \"steps\": [";
  for (size_t i = 0; i < report.steps.size(); ++i) {
    text += (i == 0 ? "\n    " : ",\n    ") + step_json(report, report.steps[i]).dump();
  }
  return text + "\n  ]\n}\n";
}

}  // namespace evenspan::cli
