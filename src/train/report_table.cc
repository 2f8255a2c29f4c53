// The table that `evenspan-train compare` prints.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "evenspan/train/report.h"
#include "train/amounts.h"
#include "train/run_record.h"

namespace evenspan::train {
namespace {

// printf into a string.
template <class... Values>
std::string text(const char* format, Values... values) {
  char buffer[256];
  std::snprintf(buffer, sizeof buffer, format, values...);
  return buffer;
}

// Beside what `ring` would have sent: bytes of one forward of all layers, over all steps.
std::string ring_line(const RunRecord& run) {
  double sent = 0;
  double ring = 0;
  for (const RunRecord::Step& s : run.steps) {
    sent += static_cast<double>(s.forward_bytes);
    ring += static_cast<double>(s.ring_bytes);
  }
  return text("forward bytes of attention, all steps: %s %s, ring would have sent %s (%.1f %%)\n", run.strategy.c_str(),
              bytes_text(sent).c_str(), bytes_text(ring).c_str(), ring > 0 ? 100 * sent / ring : 0.0);
}

// Empty where there is one.
std::string replicas_line(const RunRecord& run) {
  if (run.num_replicas == 1) return "";
  const int32_t ranks = run.num_ranks / run.num_replicas;
  return text("replicas: %d of %d rank%s\n", run.num_replicas, ranks, ranks == 1 ? "" : "s");
}

// Empty where no batch was cut.
std::string micro_batches_line(const RunRecord& run) {
  const MicroBatchTotals totals = micro_batch_totals(run);
  if (totals.most == 1) return "";
  std::string line =
      text("micro-batches: %.1f of a step in the mean, %lld at most", totals.mean, static_cast<long long>(totals.most));
  if (totals.modelled_seconds > 0) {
    line += text("; steps took %.3g s, modelled %.3g s", totals.seconds, totals.modelled_seconds);
  }
  return line + "\n";
}

}  // namespace

std::string comparison_table(const Comparison& c) {
  std::string out = text("\n%6s  %20s  %12s  %12s\n", "step", text("loss, %d ranks", c.run.num_ranks).c_str(),
                         "loss, 1 rank", "difference");
  for (size_t i = 0; i < c.run.steps.size(); ++i) {
    const double a = c.run.steps[i].loss;
    const double b = c.reference.steps[i].loss;
    out += text("%6lld  %20.7f  %12.7f  %12.1e\n", static_cast<long long>(c.run.steps[i].step), a, b, a - b);
  }
  out += text("\n%6s  %14s  %14s  %16s  %16s\n", "rank", "tokens", "work of mean", "attention sent", "optimiser sent");
  std::vector<double> tokens(static_cast<size_t>(c.run.num_ranks)), work(tokens), attention(tokens), optimizer(tokens);
  double all_work = 0;
  for (const RunRecord::Step& s : c.run.steps) {
    for (size_t r = 0; r < tokens.size(); ++r) {
      tokens[r] += static_cast<double>(s.rank_tokens[r]);
      work[r] += s.rank_work[r];
      all_work += s.rank_work[r];
      for (size_t to = 0; to < tokens.size(); ++to) {
        attention[r] += static_cast<double>(s.attention_bytes[r][to]);
        optimizer[r] += static_cast<double>(s.optimizer_bytes[r][to]);
      }
    }
  }
  for (size_t r = 0; r < tokens.size(); ++r) {
    out += text("%6zu  %14.0f  %14.3f  %16s  %16s\n", r, tokens[r], work[r] * c.run.num_ranks / all_work,
                bytes_text(attention[r]).c_str(), bytes_text(optimizer[r]).c_str());
  }
  double worst_work = 1;
  double worst_tokens = 1;
  for (const RunRecord::Step& s : c.run.steps) {
    worst_work = std::max(worst_work, s.work_max_over_mean);
    worst_tokens = std::max(worst_tokens, s.tokens_max_over_mean);
  }
  out += text("worst step: work max/mean %.3f, tokens max/mean %.3f\n", worst_work, worst_tokens);
  out += replicas_line(c.run);
  out += micro_batches_line(c.run);
  out += ring_line(c.run);
  out += text("time: %.1f s on %d ranks, %.1f s on 1 rank (of the same machine)\n", c.run.seconds, c.run.num_ranks,
              c.reference.seconds);
  if (!std::isnan(c.run.held_out_loss))
    out += text("held-out loss: %.7f on %d ranks, %.7f on 1 rank\n", c.run.held_out_loss, c.run.num_ranks,
                c.reference.held_out_loss);
  out += "\nequal when the distance of all final weights (relative L2) is at most ";
  out += c.run.dtype == "float64" ? "1e-8" : "10 x the median of the repacked runs (at least 1e-6)";
  out += ",\nand the first loss differs by at most 1e-6:\n";
  for (size_t i = 0; i < c.repacked_distances.size(); ++i)
    out += text("  repacked run %zu, 1 rank: distance %.3e\n", i + 1, c.repacked_distances[i]);
  out += text("  %d ranks: distance %.3e, allowed %.3e; first loss differs by %.1e, the largest difference is %.1e\n",
              c.run.num_ranks, c.distance, c.allowed_distance, c.first_loss_difference, c.largest_loss_difference);
  out += c.equal ? "  EQUAL\n" : "  NOT EQUAL\n";
  return out;
}

}  // namespace evenspan::train
