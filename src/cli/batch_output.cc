#include "cli/batch_output.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "cli/simulate_output.h"
#include "cli/table.h"
#include "evenspan/core/error.h"
#include "evenspan/core/grouped.h"

namespace evenspan::cli {
namespace {

std::string gigabytes(double bytes) { return fixed(1e-9 * bytes, 1) + " GB"; }

// What the steps have of a planner, or of the bound.
template <class Value>
std::vector<double> values_of(const BatchReport& report, Value&& value) {
  std::vector<double> out;
  for (const BatchStep& step : report.steps) out.push_back(value(step));
  return out;
}
double sum(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }
double mean(const std::vector<double>& values) { return sum(values) / static_cast<double>(values.size()); }
double most(const std::vector<double>& values) { return *std::max_element(values.begin(), values.end()); }

// The least of the values that so many of a hundred of them are not above.
double percentile(std::vector<double> values, int64_t percent) {
  std::sort(values.begin(), values.end());
  const auto count = static_cast<int64_t>(values.size());
  return values[static_cast<size_t>((count * percent + 99) / 100 - 1)];
}

bool is_simulated(const BatchReport& report) { return report.steps.front().outcomes.front().simulated.has_value(); }

std::vector<std::string> planner_row(const BatchReport& report, size_t p) {
  const auto of = [&](auto&& value) {
    return values_of(report, [&](const BatchStep& step) { return value(step.outcomes[p]); });
  };
  const std::vector<double> seconds = of([](const BatchOutcome& o) { return o.cost.seconds; });
  const std::vector<double> bounds = values_of(report, [](const BatchStep& step) { return step.bound.seconds; });
  std::vector<double> ratios;
  for (size_t i = 0; i < seconds.size(); ++i) ratios.push_back(seconds[i] / bounds[i]);
  const auto share = [&](auto&& fraction) {
    const std::vector<double> parts = of([&](const BatchOutcome& o) { return fraction(o.cost) * o.cost.seconds; });
    return fixed(100 * std::max(sum(parts) / sum(seconds), 0.0), 1);  // idle time may be less than 0 by rounding
  };
  const double peak = most(of([](const BatchOutcome& o) { return static_cast<double>(o.cost.peak_tokens); }));
  std::vector<std::string> row = {std::string(report.planners[p]->name), fixed(mean(seconds), 3),
                                  fixed(sum(seconds) / sum(bounds), 3)};
  if (is_simulated(report)) {
    row.push_back(fixed(mean(of([](const BatchOutcome& o) { return o.simulated->placed_seconds; })), 3));
    row.push_back(fixed(mean(of([](const BatchOutcome& o) { return o.simulated->mixed_seconds; })), 3));
    row.push_back(fixed(mean(of([](const BatchOutcome& o) { return o.simulated->auto_seconds; })), 3));
  }
  if (report.steps.size() > 1) {
    row.push_back(fixed(percentile(ratios, 95), 3));
    row.push_back(fixed(most(ratios), 3));
    row.push_back(fixed(percentile(seconds, 95) / percentile(seconds, 50), 3));
  }
  const double batches =
      mean(of([](const BatchOutcome& o) { return static_cast<double>(o.planned.plan.micro_batches.size()); }));
  row.push_back(fixed(batches, report.steps.size() > 1 ? 1 : 0));
  row.push_back(fixed(100 * peak / static_cast<double>(report.machine.cost.capacity_tokens), 1));
  row.push_back(share([](const batch::StepCost& cost) { return cost.exchange_fraction; }));
  row.push_back(share([](const batch::StepCost& cost) { return cost.idle_fraction; }));
  const double programs = sum(of([](const BatchOutcome& o) { return static_cast<double>(o.planned.num_programs); }));
  const double proven = sum(of([](const BatchOutcome& o) { return static_cast<double>(o.planned.num_proven); }));
  row.push_back(programs == 0 ? "-" : fixed(proven, 0) + "/" + fixed(programs, 0));
  if (report.has_times) {
    const std::vector<double> planning = of([](const BatchOutcome& o) { return 1e3 * o.planning_seconds; });
    row.push_back(fixed(mean(planning), 1));
    if (report.steps.size() > 1) row.push_back(fixed(most(planning), 1));
  }
  return row;
}

// Ranks, and how many documents are on so many; from most ranks on.
using DocumentsOn = std::map<int64_t, int64_t, std::greater<>>;

// "1 on 13, 2 on 4, 24 on 2"; of many sizes the largest and the smallest ones.
std::string groups_text(const DocumentsOn& on) {
  constexpr size_t kMostSizes = 6;
  const size_t left_out = on.size() > kMostSizes + 1 ? on.size() - kMostSizes : 0;
  std::string text;
  size_t i = 0;
  for (const auto& [ranks, count] : on) {
    const size_t at = i++;
    if (left_out > 0 && at == kMostSizes / 2) text += join_text(", ", left_out, " more sizes");
    if (left_out > 0 && at >= kMostSizes / 2 && at < kMostSizes / 2 + left_out) continue;
    text += (text.empty() ? "" : ", ") + join_text(count, " on ", ranks);
  }
  return text;
}

// "39 steps of 512 documents, 1,568,902 tokens a step in the mean; the last 32 documents fill no step".
std::string steps_sentence(const BatchReport& report) {
  const GlobalBatches& batches = report.batches;
  if (batches.unit.empty()) return "All documents are one step's";
  const auto count = static_cast<int64_t>(report.steps.size());
  std::string text;
  if (count == batches.num_steps) {
    text = counted(count, "step");
  } else if (count == 1) {
    text = join_text("Step ", report.steps.front().batch.step, " of steps 0 to ", batches.num_steps - 1);
  } else {
    text = join_text("Steps ", report.steps.front().batch.step, " to ", report.steps.back().batch.step,
                     " of steps 0 to ", batches.num_steps - 1);
  }
  text += ", " + batches.unit + " a step";
  if (batches.num_left_documents > 0) {
    text += "; the last " + counted(batches.num_left_documents, "document") +
            (batches.num_left_documents == 1 ? " fills" : " fill") + " no step and " +
            (batches.num_left_documents == 1 ? "is" : "are") + " left out";
  }
  return text;
}

std::vector<std::string> memory_sentences(const BatchMachine& machine) {
  const std::string fit = machine.cost.capacity_tokens == 1 ? " fits" : " fit";
  std::string room = counted(machine.cost.capacity_tokens, "token");
  if (machine.model) room += " of " + fixed(1e-6 * machine.token_bytes, 3) + " MB";
  room += fit + " on a rank in a micro-batch, " + grouped(machine.cost.cluster_tokens()) + " on all ranks";
  if (!machine.model) return {room};
  return {"A rank has " + gigabytes(static_cast<double>(machine.memory_bytes)) + " of memory, " +
              gigabytes(machine.state_bytes) + " of it for the model's states",
          room};
}

}  // namespace

std::vector<std::string> batch_heading(const BatchReport& report) {
  const BatchMachine& machine = report.machine;
  int64_t documents = 0, tokens = 0;
  for (const BatchStep& step : report.steps) {
    documents += static_cast<int64_t>(step.batch.lengths.size());
    for (const int64_t length : step.batch.lengths) tokens += length;
  }
  std::string what = machine.name + ": " + counted(documents, "document") + ", " + counted(tokens, "token") + " on " +
                     counted(machine.cost.num_ranks, "rank") + " (" + grouped(machine.cost.ranks_per_node) + " a node)";
  what += machine.model ? ", " + model_words(*machine.model) + ", causal"
                        : ", published constants, context limit " + grouped(machine.context_limit) + "K tokens";
  std::vector<std::string> lines = {what, steps_sentence(report)};
  if (machine.num_long_documents > 0) {
    const bool one = machine.num_long_documents == 1;
    lines.push_back(counted(machine.num_long_documents, "document") + (one ? " is" : " are") +
                    " longer than the context limit and left out");
  }
  for (std::string& line : memory_sentences(machine)) lines.push_back(std::move(line));
  const auto bound = [&](auto&& part) {
    return fixed(mean(values_of(report, [&](const BatchStep& step) { return part(step.bound); })), 3);
  };
  const double batches = mean(
      values_of(report, [](const BatchStep& step) { return static_cast<double>(step.bound.least_micro_batches); }));
  const bool several = report.steps.size() > 1;
  lines.push_back("No plan takes less than " + bound([](const auto& b) { return b.seconds; }) + " s" +
                  (several ? " a step in the mean: " : ": ") + bound([](const auto& b) { return b.work_seconds; }) +
                  " of work, " + bound([](const auto& b) { return b.exchange_seconds; }) + " of all-to-alls and " +
                  fixed(batches * machine.cost.micro_batch_seconds, 3) + " of " + fixed(batches, several ? 1 : 0) +
                  (batches == 1 ? " micro-batch" : " micro-batches"));
  return lines;
}

std::vector<std::vector<std::string>> batch_rows(const BatchReport& report) {
  const bool several = report.steps.size() > 1;
  std::vector<std::vector<std::string>> rows = {{"planner", "step s", "of bound"}};
  if (is_simulated(report)) rows[0].insert(rows[0].end(), {"placed s", "mixed s", "auto s"});
  if (several) rows[0].insert(rows[0].end(), {"p95", "worst", "spread"});
  rows[0].insert(rows[0].end(), {"batches", "memory %", "all-to-all %", "idle %", "proven"});
  if (report.has_times) rows[0].emplace_back("plan ms");
  if (report.has_times && several) rows[0].emplace_back("most ms");
  for (size_t p = 0; p < report.planners.size(); ++p) rows.push_back(planner_row(report, p));
  return rows;
}

std::string batch_columns(const BatchReport& report) {
  const bool several = report.steps.size() > 1;
  std::string text;
  if (several) {
    text +=
        "step: forward and backward of the whole model, the mean of the steps; of bound: all steps' seconds over all\n"
        "bounds; p95, worst: of the steps' ratios to their bounds, the least that 95 % are not above, and the "
        "largest;\n"
        "spread: the same percentile of the steps' seconds over their median; batches: micro-batches of a step.\n";
  } else {
    text +=
        "step: forward and backward of the whole model; of bound: its seconds over the bound; batches: "
        "micro-batches.\n";
  }
  if (is_simulated(report)) {
    text +=
        "placed, mixed, auto: the step as it is simulated, every document on the ranks that the planner gave it, and "
        "the\n"
        "same micro-batches with their documents placed by the strategy mixed, and by the fastest strategy of each.\n";
  }
  text +=
      "memory: the most tokens of a rank in a micro-batch, of those that fit. all-to-all, idle: shares of all ranks'\n"
      "time; ranks are idle until the slowest of a micro-batch is done. proven: of the programs that a solver was\n"
      "given, those that it solved to the end.";
  if (report.has_times) text += several ? " plan, most: planning of a step, the mean and the longest." : "";
  return text + "\n";
}

std::vector<std::vector<std::string>> micro_batch_rows(const BatchOutcome& outcome,
                                                       const std::vector<int64_t>& lengths) {
  std::vector<std::vector<std::string>> rows = {
      {"micro-batch", "documents", "tokens", "longest", "seconds", "idle %", "documents on ranks"}};
  for (size_t b = 0; b < outcome.planned.plan.micro_batches.size(); ++b) {
    const batch::MicroBatchCost& cost = outcome.cost.micro_batches[b];
    DocumentsOn on;
    int64_t documents = 0, tokens = 0, longest = 0;
    batch::for_each_document(outcome.planned.plan.micro_batches[b], [&](std::span<const batch::Share> shares) {
      ++on[static_cast<int64_t>(shares.size())];
      const int64_t length = lengths[static_cast<size_t>(shares.front().document)];
      ++documents;
      tokens += length;
      longest = std::max(longest, length);
    });
    const double busy = std::accumulate(cost.rank_seconds.begin(), cost.rank_seconds.end(), 0.0);
    const double idle = 1 - busy / (cost.seconds * static_cast<double>(cost.rank_seconds.size()));
    rows.push_back({join_text(b), grouped(documents), grouped(tokens), grouped(longest), fixed(cost.seconds, 3),
                    fixed(100 * std::max(idle, 0.0), 1), groups_text(on)});
  }
  return rows;
}

std::string batch_table(const BatchReport& report) {
  std::string text;
  for (const std::string& line : batch_heading(report)) text += line + ".\n";
  text += "\n" + aligned(batch_rows(report)) + "\n" + batch_columns(report);
  if (report.steps.size() > 1) return text;
  const BatchStep& step = report.steps.front();
  for (size_t p = 0; p < report.planners.size(); ++p) {
    text += join_text("\n", report.planners[p]->name, ":\n",
                      aligned(micro_batch_rows(step.outcomes[p], step.batch.lengths)));
  }
  return text;
}

}  // namespace evenspan::cli
