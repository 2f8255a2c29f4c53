#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "cli/batch_output.h"
#include "cli/embedded_files.h"
#include "cli/filled_page.h"

namespace evenspan::cli {
namespace {

using Json = nlohmann::ordered_json;

// Five digits, so that a page of many steps stays small.
double rounded(double value) {
  char digits[32];
  std::snprintf(digits, sizeof digits, "%.5g", value);
  return std::strtod(digits, nullptr);
}

Json rounded(const std::vector<double>& values) {
  Json out = Json::array();
  for (const double value : values) out.push_back(rounded(value));
  return out;
}

Json page_plan(const BatchOutcome& outcome, const std::vector<int64_t>& lengths) {
  const std::vector<std::vector<std::string>> rows = micro_batch_rows(outcome, lengths);
  Json batches = Json::array();
  for (size_t b = 0; b < outcome.cost.micro_batches.size(); ++b) {
    const batch::MicroBatchCost& cost = outcome.cost.micro_batches[b];
    batches.push_back({{"row", rows[b + 1]},
                       {"seconds", rounded(cost.seconds)},
                       {"busy", rounded(cost.rank_seconds)},
                       {"exchange", rounded(cost.rank_exchange_seconds)},
                       {"tokens", cost.rank_tokens}});
  }
  return {{"seconds", rounded(outcome.cost.seconds)}, {"batches", std::move(batches)}};
}

}  // namespace

std::string batch_page(const BatchReport& report) {
  std::string about;
  for (const std::string& line : batch_heading(report)) about += (about.empty() ? "" : " ") + line + ".";
  std::string beside = batch_columns(report);
  std::replace(beside.begin(), beside.end(), '\n', ' ');
  const std::vector<std::vector<std::string>> rows = batch_rows(report);
  Json names = Json::array();
  for (const batch::Planner* planner : report.planners) names.push_back(planner->name);
  Json steps = Json::array();
  for (const BatchStep& step : report.steps) {
    Json plans = Json::array();
    for (const BatchOutcome& outcome : step.outcomes) plans.push_back(page_plan(outcome, step.batch.lengths));
    int64_t tokens = 0;
    for (const int64_t length : step.batch.lengths) tokens += length;
    steps.push_back({{"step", step.batch.step},
                     {"documents", step.batch.lengths.size()},
                     {"tokens", tokens},
                     {"bound", rounded(step.bound.seconds)},
                     {"plans", std::move(plans)}});
  }
  const Json json = {{"title", "Global batches, planned"},
                     {"about", about},
                     {"beside", beside},
                     {"columns", rows.front()},
                     {"table", std::vector(rows.begin() + 1, rows.end())},
                     {"capacity", report.machine.cost.capacity_tokens},
                     {"fixed", rounded(report.machine.cost.micro_batch_seconds)},
                     {"planners", std::move(names)},
                     {"batch_columns", micro_batch_rows({}, {}).front()},
                     {"steps", std::move(steps)}};
  return filled_page(kBatchPage, json.dump());
}

}  // namespace evenspan::cli
