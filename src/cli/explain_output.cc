#include "cli/explain_output.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <string_view>
#include <vector>

#include "cli/table.h"
#include "evenspan/core/error.h"
#include "evenspan/core/grouped.h"
#include "plan/strategy/strategy.h"

namespace evenspan::cli {
namespace {

using Json = nlohmann::ordered_json;
using simulate::Candidate;
using simulate::DocumentGroup;
using simulate::Explanation;
using simulate::Reason;
using simulate::Spread;

constexpr size_t kMostGroups = 12;

std::string in_milliseconds(double seconds) { return fixed(1e3 * std::max(seconds, 0.0), 3); }
std::string in_megabytes(int64_t bytes) { return fixed(1e-6 * static_cast<double>(bytes), 1); }
// "2.5" or "1.0 to 2.5".
std::string range(const std::string& from, const std::string& to) { return from == to ? from : from + " to " + to; }

std::string explained_name(const std::string& strategy, int32_t ranks_per_group) {
  return ranks_per_group > 0 ? join_text(strategy, " with ", ranks_per_group, " ranks a group") : strategy;
}

std::string explained_choice(const simulate::RunnablePlan& planned) {
  const plan::Options& options = planned.plan->request.options;
  const std::string name = explained_name(options.strategy, options.ranks_per_group);
  if (!planned.choice) return "The strategy is " + name + ".\n";
  const Candidate* second = nullptr;
  int64_t simulated = 0, bounded = 0;
  for (const Candidate& c : planned.choice->candidates) {
    ++(c.simulated ? simulated : bounded);
    const bool chosen = c.strategy == options.strategy && c.ranks_per_group == options.ranks_per_group;
    if (c.simulated && !chosen && (second == nullptr || c.step_seconds < second->step_seconds)) second = &c;
  }
  std::string text =
      join_text("auto takes ", name, ", the shortest step of ", counted(simulated, "candidate"), " simulated");
  if (second != nullptr) {
    text += join_text("; ", explained_name(second->strategy, second->ranks_per_group), " takes ",
                      in_milliseconds(second->step_seconds), " ms");
  }
  if (bounded > 0) text += join_text("; ", bounded, " cannot be shorter by their bounds");
  if (!planned.note.empty()) text += ".\nNote: " + planned.note;
  return text + ".\n";
}

std::string reason_text(const DocumentGroup& group, const plan::Plan& plan) {
  const bool one = group.num_documents == 1;
  const std::string its = one ? "its" : "their";
  switch (group.reason) {
    case Reason::fits:
      return "";
    case Reason::strategy:
      return ", since " + plan.request.options.strategy +
             (group.spread == Spread::by_heads &&
                      plan::find_strategy(plan.request.options.strategy).traits.splits_all_heads
                  ? " splits the heads of a group's documents over its ranks"
                  : " spreads every document");
    case Reason::work:
      return join_text(", since ", its, " work is that of ",
                       range(fixed(group.least_ranks, 2), fixed(group.most_ranks, 2)), " ranks", one ? "" : " each");
    case Reason::tokens:
      return ", since " + its + " tokens are more than a rank may have";
    case Reason::balance:
      return std::string(", to fill ranks that have room: ") + (one ? "it" : "each") + " would fit on one";
  }
  return "";
}

std::string group_text(const DocumentGroup& group, const plan::Plan& plan) {
  const bool one = group.num_documents == 1;
  std::string text = join_text("  ", counted(group.num_documents, "document"), " of ",
                               range(grouped(group.shortest), grouped(group.longest)), " tokens: ");
  switch (group.spread) {
    case Spread::whole:
      text += one ? "whole on a rank" : "whole on a rank each";
      break;
    case Spread::cut:
      text += join_text("cut over ", group.num_ranks, " ranks");
      break;
    case Spread::by_heads:
      text += join_text("split by heads over ", group.num_ranks, " ranks");
      break;
  }
  if (group.spread != Spread::whole && plan.request.topology.levels.size() > 1) {
    text += join_text(" of ", counted(group.num_nodes, "node"));
  }
  text += reason_text(group, plan);
  return text + (group.sent_bytes > 0 ? join_text("; ", in_megabytes(group.sent_bytes), " MB\n") : "; nothing sent\n");
}

std::string traffic_text(const Explanation& e) {
  std::string text = join_text("One layer's forward sends ", in_megabytes(e.sent_bytes), " MB, ",
                               in_megabytes(e.key_value_bytes), " MB of it keys and values. ");
  const std::string limits =
      join_text("work within ", fixed(e.bound.limits.work_max_over_mean, 2), " and tokens within ",
                fixed(e.bound.limits.tokens_max_over_mean, 2), " of the mean");
  if (e.bound.binding == plan::Binding::nothing) {
    return text + "With\n" + limits + " no single document is too much for a rank.\n";
  }
  return text + join_text("Plans with queries at home,\n", limits, ", send at least ",
                          in_megabytes(e.bound.key_value_bytes), " MB of keys and values, since\n",
                          e.bound.binding == plan::Binding::work
                              ? "single documents have more work than a rank"
                              : "the ranks that hold long documents must have their share of tokens",
                          e.keeps_limits ? ".\n" : ".\nThis plan is less even than that, and may send less.\n");
}

constexpr std::string_view kMessages = "message_seconds";

struct PrintedPart {
  std::string_view key;
  double seconds;
  const char* text;
};
std::vector<PrintedPart> parts_of(const simulate::StepParts& step) {
  return {
      {"lower_bound_seconds", step.lower_bound_seconds, "all work divided evenly, at the best rate: the lower bound"},
      {"kernel_seconds", step.kernel_seconds, "attention kernels below their best rate"},
      {"launch_seconds", step.launch_seconds, "launches of attention kernels"},
      {"copy_seconds", step.copy_seconds, "copies and additions in memory"},
      {kMessages, step.message_seconds, "messages, where processors move them"},
      {"imbalance_seconds", step.imbalance_seconds, "computing of the busiest rank above the mean"},
      {"exposed_seconds", step.exposed_seconds, "waiting of the busiest rank, for transfers and other ranks"}};
}

std::string step_text(const simulate::Scenario& scenario, const Explanation& e) {
  std::string text = join_text("The step takes ", in_milliseconds(e.step.step_seconds), " ms, of which\n");
  std::vector<std::vector<std::string>> rows;
  std::string most_text;
  double most = 0;
  std::vector<PrintedPart> parts = parts_of(e.step);
  std::erase_if(parts, [](const PrintedPart& part) { return part.key == kMessages && part.seconds == 0; });
  for (const PrintedPart& part : parts) {
    rows.push_back({in_milliseconds(part.seconds), fixed(100 * std::max(part.seconds, 0.0) / e.step.step_seconds, 1)});
    if (part.seconds <= most || part.key == "lower_bound_seconds") continue;
    most = part.seconds;
    most_text = part.text;
  }
  std::string lines = aligned(rows);
  size_t begin = 0;
  for (const PrintedPart& part : parts) {
    const size_t end = lines.find('\n', begin);
    text += lines.substr(begin, end - begin) + " %  " + part.text + "\n";
    begin = end + 1;
  }
  if (most > 0) text += "What limits it most, above the bound: " + most_text + ".\n";
  const simulate::BusiestRank& busiest = e.busiest;
  text += join_text("\nThe busiest is rank ", busiest.rank.value, " with ", grouped(busiest.num_tokens),
                    " tokens. It computes ", in_milliseconds(e.step.step_seconds - e.step.exposed_seconds),
                    " ms: attention ", in_milliseconds(busiest.attention_seconds), ",\ntoken-wise layers ",
                    in_milliseconds(busiest.token_seconds), ", copies ", in_milliseconds(busiest.copy_seconds),
                    busiest.message_seconds > 0 ? ", messages " + in_milliseconds(busiest.message_seconds) : "", ". ");
  std::string waits;
  for (size_t level = 0; level < busiest.wait_seconds_by_level.size(); ++level) {
    if (busiest.wait_seconds_by_level[level] <= 0) continue;
    waits += join_text(waits.empty() ? "" : ", ", in_milliseconds(busiest.wait_seconds_by_level[level]),
                       " ms for exchanges among ", scenario.machine.topology.levels[level].group_size, " ranks");
  }
  return join_text(text, "In a layer that all ranks begin together it waits\n",
                   waits.empty() ? "for no exchange" : waits, ".\n");
}

std::string memory_text(const simulate::RunnablePlan& planned, const Explanation& e) {
  const int64_t budget = planned.plan->request.options.memory_budget_bytes;
  return join_text("Memory of a layer on a rank, at most: ", in_megabytes(e.prediction.peak_arena_bytes),
                   " MB temporary, ", in_megabytes(e.prediction.peak_saved_bytes), " MB saved for backward",
                   budget > 0 ? join_text("; the budget is ", in_megabytes(budget), " MB") : "", ".\n");
}

}  // namespace

std::string explanation_text(const simulate::Scenario& scenario, const simulate::RunnablePlan& planned,
                             const Explanation& explanation) {
  std::string documents;
  int64_t left_out = 0;
  for (size_t g = 0; g < explanation.groups.size(); ++g) {
    if (g < kMostGroups) {
      documents += group_text(explanation.groups[g], *planned.plan);
    } else {
      left_out += explanation.groups[g].num_documents;
    }
  }
  if (left_out > 0) documents += join_text("  and ", counted(left_out, "document"), " more; --json lists them all\n");
  return join_text(
      explained_choice(planned), "\nWhere the documents went; MB are those of one layer's forward, 10^6 bytes:\n",
      documents, traffic_text(explanation), "\n", step_text(scenario, explanation), memory_text(planned, explanation));
}

std::string explanation_json(const simulate::Scenario& scenario, const simulate::RunnablePlan& planned,
                             const Explanation& explanation) {
  const plan::Request& request = planned.plan->request;
  Json candidates = Json::array();
  if (planned.choice) {
    for (const Candidate& c : planned.choice->candidates) {
      candidates.push_back({{"strategy", c.strategy},
                            {"ranks_per_group", c.ranks_per_group},
                            {"simulated", c.simulated},
                            {"step_seconds", c.step_seconds}});
    }
  }
  Json groups = Json::array();
  for (const DocumentGroup& group : explanation.groups) {
    groups.push_back({{"spread", to_string(group.spread)},
                      {"reason", to_string(group.reason)},
                      {"ranks", group.num_ranks},
                      {"nodes", group.num_nodes},
                      {"documents", group.num_documents},
                      {"first_document", group.first.value},
                      {"shortest", group.shortest},
                      {"longest", group.longest},
                      {"tokens", group.num_tokens},
                      {"sent_bytes", group.sent_bytes},
                      {"least_ranks_of_work", group.least_ranks},
                      {"most_ranks_of_work", group.most_ranks}});
  }
  Json step = {{"step_seconds", explanation.step.step_seconds}};
  for (const PrintedPart& part : parts_of(explanation.step)) step[part.key] = part.seconds;
  const simulate::BusiestRank& busiest = explanation.busiest;
  const Json json = {
      {"profile", scenario.profile.name},
      {"ranks", request.num_ranks()},
      {"strategy", request.options.strategy},
      {"ranks_per_group", request.options.ranks_per_group},
      {"note", planned.note},
      {"candidates", std::move(candidates)},
      {"groups", std::move(groups)},
      {"sent_bytes", explanation.sent_bytes},
      {"key_value_bytes", explanation.key_value_bytes},
      {"bound",
       {{"key_value_bytes", explanation.bound.key_value_bytes}, {"binding", to_string(explanation.bound.binding)}}},
      {"step", std::move(step)},
      {"busiest",
       {{"rank", busiest.rank.value},
        {"tokens", busiest.num_tokens},
        {"attention_seconds", busiest.attention_seconds},
        {"token_seconds", busiest.token_seconds},
        {"copy_seconds", busiest.copy_seconds},
        {"message_seconds", busiest.message_seconds},
        {"wait_seconds_by_level", busiest.wait_seconds_by_level}}},
      {"peak_arena_bytes", explanation.prediction.peak_arena_bytes},
      {"peak_saved_bytes", explanation.prediction.peak_saved_bytes},
  };
  return json.dump(2) + "\n";
}

}  // namespace evenspan::cli
