#include "cli/plan_page.h"

#include <nlohmann/json.hpp>

#include <map>

#include "cli/embedded_files.h"
#include "cli/filled_page.h"

namespace evenspan::cli {
namespace {

using Json = nlohmann::ordered_json;

// Microseconds with three digits, so that a page of a thousand ranks stays small.
double microseconds(double seconds) { return static_cast<double>(static_cast<int64_t>(seconds * 1e9 + 0.5)) / 1e3; }

void append_timeline(const simulate::PassPrediction& pass, double offset_seconds, Json* timeline) {
  for (const simulate::Interval& interval : pass.timeline) {
    timeline->push_back({interval.rank.value, interval.engine == simulate::Engine::compute ? 0 : 1, interval.name,
                         microseconds(offset_seconds + interval.begin_seconds),
                         microseconds(offset_seconds + interval.end_seconds), interval.sent_bytes,
                         interval.live_bytes});
  }
}

Json plan_json(const PagePlan& page) {
  const plan::Plan& plan = *page.plan;
  const plan::Topology& topology = plan.request.topology;
  Json placement = Json::array();
  for (int32_t r = 0; r < topology.num_ranks; ++r) {
    Json& spans = placement.emplace_back(Json::array());
    for (const auto& [document, span] : plan.placement.spans(Rank(r))) {
      spans.push_back({document.value, span.begin, span.end});
    }
  }
  std::map<std::pair<int32_t, int32_t>, int64_t> sent;
  std::vector<int64_t> by_level(topology.levels.size(), 0);
  plan::for_each_transfer(plan, [&](const auto& moved, int64_t bytes) {
    sent[{static_cast<int32_t>(moved.from.value), static_cast<int32_t>(moved.to.value)}] += bytes;
    by_level[topology.level_between(moved.from, moved.to)] += bytes;
  });
  Json pairs = Json::array();
  for (const auto& [ranks, bytes] : sent) pairs.push_back({ranks.first, ranks.second, bytes});
  Json levels = Json::array();
  for (size_t l = 0; l < by_level.size(); ++l) {
    levels.push_back({{"group_size", topology.levels[l].group_size}, {"bytes", by_level[l]}});
  }
  const plan::Metrics metrics = plan::measure(plan);
  const simulate::PassPrediction& forward = page.prediction.forward;
  const simulate::PassPrediction& backward = page.prediction.backward;
  Json timeline = Json::array();
  append_timeline(forward, 0, &timeline);
  append_timeline(backward, forward.makespan_seconds, &timeline);
  return {{"name", page.name},
          {"tokens", metrics.tokens},
          {"work", metrics.work_seconds},
          {"placement", std::move(placement)},
          {"sent", std::move(pairs)},
          {"levels", std::move(levels)},
          {"forward_us", microseconds(forward.makespan_seconds)},
          {"end_us", microseconds(forward.makespan_seconds + backward.makespan_seconds)},
          {"timeline", std::move(timeline)}};
}

}  // namespace

std::string plan_page(const PageText& text, const std::vector<PagePlan>& plans) {
  const plan::Request& request = plans.front().plan->request;
  Json lengths = Json::array();
  for (const plan::Document& document : request.documents.all()) lengths.push_back(document.length);
  Json json = {{"title", text.title},
               {"about", text.about},
               {"ranks_per_node", request.topology.ranks_per_node()},
               {"lengths", std::move(lengths)},
               {"strategies", Json::array()}};
  if (!text.rows.empty()) {
    json["beside"] = text.beside;
    json["columns"] = text.rows.front();
    json["table"] = std::vector(text.rows.begin() + 1, text.rows.end());
  }
  for (const PagePlan& plan : plans) json["strategies"].push_back(plan_json(plan));
  return filled_page(kPage, json.dump());
}

}  // namespace evenspan::cli
