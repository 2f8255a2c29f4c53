#include "cli/plan_json.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>

#include "evenspan/plan/program.h"
#include "evenspan/simulate/bound.h"

namespace evenspan::cli {
namespace {

using Json = nlohmann::ordered_json;

Json placement_json(const plan::Placement& placement) {
  Json ranks = Json::array();
  for (int32_t r = 0; r < placement.num_ranks(); ++r) {
    Json& spans = ranks.emplace_back(Json::array());
    for (const auto& [document, span] : placement.spans(Rank(r))) {
      spans.push_back({document.value, span.begin, span.end});
    }
  }
  return ranks;
}

Json tiles_json(const plan::Plan& plan) {
  Json ranks = Json::array();
  for (int32_t r = 0; r < plan.request.num_ranks(); ++r) ranks.push_back(Json::array());
  for (const auto& [rank, round, tile] : plan.tasks) {
    ranks[static_cast<size_t>(rank.value)].push_back({tile.document.value, tile.queries.begin, tile.queries.end,
                                                      tile.keys.begin, tile.keys.end, to_string(tile.kind),
                                                      tile.heads.begin, tile.heads.end});
  }
  return ranks;
}

std::string hex(uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(value));
  return text;
}

Json number_or_null(const std::optional<double>& number) { return number ? Json(*number) : Json(nullptr); }

}  // namespace

PlanForecast forecast(const plan::Plan& plan, const simulate::Scenario* scenario, const WorkPart& work) {
  PlanForecast out;
  const plan::Topology& topology = plan.request.topology;
  out.sent_bytes_by_level.assign(topology.levels.size(), 0);
  plan::for_each_transfer(plan, [&](const auto& sent, int64_t bytes) {
    out.sent_bytes_by_level[topology.level_between(sent.from, sent.to)] += bytes;
  });
  if (scenario != nullptr) {
    const simulate::Prediction prediction = simulate::predict(plan, *scenario, simulate::Timeline::skip, work);
    out.modelled_seconds = prediction.step_seconds;
    out.lower_bound_seconds = simulate::step_lower_bound(plan.request, *scenario);
    out.peak_arena_bytes = prediction.peak_arena_bytes;
    return out;
  }
  for (int32_t r = 0; r < plan.request.num_ranks(); ++r) {
    const plan::RankProgram program = plan::lower(plan, Rank(r));
    out.peak_arena_bytes = std::max(out.peak_arena_bytes, program.bytes(plan::Lifetime::phase));
    work.tell(r + 1, plan.request.num_ranks());
  }
  return out;
}

std::string plan_json(const plan::Plan& plan, const plan::Metrics& metrics, const PlanForecast& forecast,
                      const plan::Mask& mask, double planning_seconds) {
  const plan::Request& request = plan.request;
  Json documents = Json::array();
  for (const plan::Document& document : request.documents.all()) documents.push_back(document.length);
  const Json json = {
      {"documents", std::move(documents)},
      {"ranks", request.num_ranks()},
      {"ranks_per_node", request.topology.ranks_per_node()},
      {"strategy", request.options.strategy},
      {"ranks_per_group", request.options.ranks_per_group},
      {"heads", request.shape.num_heads},
      {"kv_heads", request.shape.num_kv_heads},
      {"head_dim", request.shape.head_dim},
      {"dtype", to_string(request.shape.element)},
      {"bytes_per_element", num_bytes(request.shape.element)},
      {"mask", to_string(mask)},
      {"token_slack", request.options.token_slack},
      {"hash", hex(plan.hash.combined())},
      {"placement", placement_json(plan.placement)},
      {"tiles", tiles_json(plan)},
      {"tokens", metrics.tokens},
      {"work_seconds", metrics.work_seconds},
      {"sent_bytes", metrics.sent_bytes},
      {"sent_bytes_by_level", forecast.sent_bytes_by_level},
      {"metrics",
       {{"tokens_max_over_mean", metrics.tokens_max_over_mean},
        {"work_max_over_mean", metrics.work_max_over_mean},
        {"sent_bytes_total", metrics.sent_bytes_total},
        {"ring_bytes_total", metrics.ring_bytes_total},
        {"modelled_seconds", number_or_null(forecast.modelled_seconds)},
        {"lower_bound_seconds", number_or_null(forecast.lower_bound_seconds)},
        {"peak_arena_bytes", forecast.peak_arena_bytes},
        {"planning_seconds", planning_seconds}}},
      {"bound",
       {{"work_max_over_mean", metrics.bound.limits.work_max_over_mean},
        {"tokens_max_over_mean", metrics.bound.limits.tokens_max_over_mean},
        {"work_seconds", metrics.bound.work_seconds},
        {"key_value_bytes", metrics.bound.key_value_bytes},
        {"binding", to_string(metrics.bound.binding)}}},
  };
  std::string text = "{\n";
  for (const auto& [key, value] : json.items()) {
    text += text.size() > 2 ? ",\n  " : "  ";
    text += Json(key).dump() + ": ";
    if (key != "placement" && key != "tiles") {
      text += value.dump();
      continue;
    }
    for (size_t r = 0; r < value.size(); ++r) text += (r == 0 ? "[\n    " : ",\n    ") + value[r].dump();
    text += "\n  ]";
  }
  return text + "\n}\n";
}

}  // namespace evenspan::cli
