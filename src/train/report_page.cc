// The report page: one HTML file without scripts or links.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "evenspan/core/grouped.h"
#include "evenspan/train/report.h"
#include "train/page_parts.h"
#include "train/run_record.h"

namespace evenspan::train {
namespace {

using page::escaped;
using page::format;

constexpr const char* kStyle = R"(
:root { color-scheme: light; }
body { margin: 0; background: #f6f7f9; color: #1f2430; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 944px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 28px; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 19px; margin: 0 0 2px; }
p { margin: 4px 0 14px; color: #566074; max-width: 76ch; }
section { background: #fff; border: 1px solid #e3e6ec; border-radius: 10px; padding: 20px 24px; margin: 18px 0; overflow-x: auto; }
svg { width: 100%; max-width: 640px; height: auto; display: block; font: 13.5px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: #1f2430; }
.grid { stroke: #e8eaef; } .mark { stroke: #dc2626; stroke-dasharray: 4 3; } .muted { fill: #6b7487; } .onbar { fill: #fff; }
.bar { fill: #3b73e0; } .span { stroke: #fff; stroke-width: 0.6; } .cell { stroke: #fff; stroke-width: 2; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: 12px; margin: 18px 0; }
.card { background: #fff; border: 1px solid #e3e6ec; border-radius: 10px; padding: 12px 16px; }
.card b { display: block; font-size: 22px; font-variant-numeric: tabular-nums; } .card span { color: #6b7487; font-size: 13.5px; }
.good b { color: #047857; } .bad b { color: #b91c1c; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 3px 10px; border-bottom: 1px solid #eef0f4; } th { color: #6b7487; font-weight: 500; }
th:first-child, td:first-child { text-align: left; }
@media (max-width: 600px) { main { padding: 20px 10px 40px; } section { padding: 14px 12px; } }
)";

std::string card(const std::string& value, const std::string& meaning, const char* kind = "") {
  return format("<div class=\"card %s\"><b>", kind) + escaped(value) + "</b><span>" + escaped(meaning) +
         "</span></div>\n";
}

std::string section(const std::string& title, const std::string& text, const std::string& inside) {
  return "<section><h2>" + escaped(title) + "</h2><p>" + escaped(text) + "</p>\n" + inside + "</section>\n";
}

std::vector<std::string> rank_names(int32_t ranks) {
  std::vector<std::string> names;
  for (int32_t r = 0; r < ranks; ++r) names.push_back(format("rank %d", r));
  return names;
}

// The sum over the steps of a [from][to] member.
std::vector<std::vector<int64_t>> sum_matrix(const RunRecord& run,
                                             std::vector<std::vector<int64_t>> RunRecord::Step::*member) {
  const auto n = static_cast<size_t>(run.num_ranks);
  std::vector<std::vector<int64_t>> sum(n, std::vector<int64_t>(n));
  for (const RunRecord::Step& s : run.steps) {
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = 0; j < n; ++j) sum[i][j] += (s.*member)[i][j];
    }
  }
  return sum;
}

std::string work_section(const RunRecord& run) {
  std::vector<double> work(static_cast<size_t>(run.num_ranks));
  std::vector<int64_t> tokens(work.size());
  double worst = 1;
  for (const RunRecord::Step& s : run.steps) {
    worst = std::max(worst, s.work_max_over_mean);
    for (size_t r = 0; r < work.size(); ++r) {
      work[r] += s.rank_work[r];
      tokens[r] += s.rank_tokens[r];
    }
  }
  const double mean = std::accumulate(work.begin(), work.end(), 0.0) / static_cast<double>(work.size());
  std::vector<std::string> texts;
  for (size_t r = 0; r < work.size(); ++r)
    texts.push_back(format("%.3f of the mean, %s tokens", work[r] / mean, grouped(tokens[r]).c_str()));
  return section("Work per rank",
                 format("Modelled work of attention and token-wise layers, over all steps. In the worst single step "
                        "the busiest rank had %.3f times the mean.",
                        worst),
                 page::bar_chart(rank_names(run.num_ranks), work, texts, mean, "mean"));
}

std::string bytes_section(const RunRecord& run) {
  double sent = 0;
  double ring = 0;
  for (const RunRecord::Step& s : run.steps) {
    sent += static_cast<double>(s.forward_bytes);
    ring += static_cast<double>(s.ring_bytes);
  }
  std::string out = section("Bytes of attention between ranks",
                            "Seen leaving each rank, forward and backward of every layer, over all steps.",
                            page::matrix_chart(sum_matrix(run, &RunRecord::Step::attention_bytes)));
  const std::vector<std::string> texts = page::byte_texts({sent, ring});
  out +=
      section("Bytes of one forward pass beside ring attention",
              "Payload of attention in one forward pass of every layer, over all steps, by the plan.",
              page::bar_chart(
                  {run.strategy, "ring"}, {sent, ring},
                  {texts[0] + format(", %.1f %% of a ring's", ring > 0 ? 100 * sent / ring : 0.0), texts[1]}, -1, ""));
  out += section("Bytes of the optimiser between ranks",
                 "Gradients to their owners and new parameters back, over all steps.",
                 page::matrix_chart(sum_matrix(run, &RunRecord::Step::optimizer_bytes)));
  return out;
}

std::string placement_section(const RunRecord& run) {
  const RunRecord::Step* placed = nullptr;  // the recorded step with the most documents, the first of equals
  for (const RunRecord::Step& s : run.steps) {
    if (!s.placement.empty() && (placed == nullptr || s.lengths.size() > placed->lengths.size())) placed = &s;
  }
  if (placed == nullptr)
    return section("Placement of the documents", "Not recorded; set run.record_placement = true.", "");
  const int64_t longest = *std::max_element(placed->lengths.begin(), placed->lengths.end());
  return section("Placement of the documents",
                 format("Step %s: %zu documents, %s tokens, the longest %s. Every bar is one rank's tokens in "
                        "their order%s. Grey documents are whole on one rank; a coloured one "
                        "is divided and has the same colour and number on every rank that holds a part.",
                        grouped(placed->step).c_str(), placed->lengths.size(), grouped(placed->tokens).c_str(),
                        grouped(longest).c_str(),
                        placed->micro_batches > 1 ? ", those of one micro-batch after those of the other" : ""),
                 page::placement_chart(*placed));
}

std::string loss_section(const Comparison& c) {
  const auto losses = [](const RunRecord& run) {
    std::vector<double> out;
    for (const RunRecord::Step& s : run.steps) out.push_back(s.loss);
    return out;
  };
  std::string chart = page::line_chart({{format("%d ranks", c.run.num_ranks), "#3b73e0", losses(c.run), false},
                                        {"1 rank", "#111827", losses(c.reference), true}},
                                       "loss per label, nats");
  return section("Loss", "The same documents on many ranks and on one: the dashed line lies on the other.", chart);
}

std::string verdict_section(const Comparison& c) {
  std::string rows = format("<tr><td>%d ranks, %s</td><td>%.3e</td><td>%.3e</td></tr>", c.run.num_ranks,
                            escaped(c.run.strategy).c_str(), c.distance, c.allowed_distance);
  for (size_t i = 0; i < c.repacked_distances.size(); ++i)
    rows += format("<tr><td>1 rank, documents packed in another order (%zu)</td><td>%.3e</td><td></td></tr>", i + 1,
                   c.repacked_distances[i]);
  rows += format("<tr><td>first loss, difference</td><td>%.1e</td><td>1.0e-06</td></tr>", c.first_loss_difference);
  rows += format("<tr><td>largest difference of a loss</td><td>%.1e</td><td></td></tr>", c.largest_loss_difference);
  return section("Is it the same training run?",
                 c.run.dtype == "float64"
                     ? "Relative L2 distance of all weights from the one-rank run; in float64 at most 1e-8."
                     : "Relative L2 distance of all weights from the one-rank run. Rounding alone drives runs apart, "
                       "so the measure is the machine's own: at most 10 times the "
                       "median distance of one-rank runs that packed the same documents in other orders.",
                 "<table><tr><th>run</th><th>distance</th><th>allowed</th></tr>" + rows + "</table>");
}

}  // namespace

std::string comparison_page(const Comparison& c) {
  const RunRecord& run = c.run;
  double worst_work = 1;
  int64_t tokens = 0;
  double sent = 0;
  double ring = 0;
  for (const RunRecord::Step& s : run.steps) {
    worst_work = std::max(worst_work, s.work_max_over_mean);
    tokens += s.tokens;
    sent += static_cast<double>(s.forward_bytes);
    ring += static_cast<double>(s.ring_bytes);
  }
  std::string out =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width, initial-scale=1\">\n<title>Evenspan: training report</title>\n<style>";
  out += kStyle;
  out += "</style></head><body><main>\n<h1>Training report</h1>\n";
  out += format(
      "<p>A model of %.2f million parameters, %lld layers, %s; %zu steps on %d ranks%s with <b>%s</b>, beside the same "
      "run on one rank.</p>\n",
      static_cast<double>(run.num_parameters) * 1e-6, static_cast<long long>(run.num_layers),
      escaped(run.dtype).c_str(), run.steps.size(), run.num_ranks,
      run.num_replicas > 1 ? format(" in %d replicas", run.num_replicas).c_str() : "", escaped(run.strategy).c_str());
  out += "<div class=\"cards\">\n";
  out += card(c.equal ? "equal" : "not equal", "to the run on one rank", c.equal ? "good" : "bad");
  out += card(format("%.4f \u2192 %.4f", run.steps.front().loss, run.steps.back().loss), "loss, first to last step");
  out += card(format("%.3f", worst_work), "work, busiest rank over mean, worst step");
  out += card(format("%.1f %%", ring > 0 ? 100 * sent / ring : 0.0), "of the bytes that ring would send");
  out += card(grouped(tokens), "tokens trained on");
  if (const MicroBatchTotals totals = micro_batch_totals(run); totals.most > 1) {
    out += card(format("%.1f", totals.mean), totals.modelled_seconds > 0
                                                 ? format("micro-batches of a step; steps took %.3g s, modelled %.3g s",
                                                          totals.seconds, totals.modelled_seconds)
                                                 : "micro-batches of a step");
  }
  out += "</div>\n";
  return out + loss_section(c) + placement_section(run) + work_section(run) + bytes_section(run) + verdict_section(c) +
         "</main></body></html>\n";
}

}  // namespace evenspan::train
