#include "train/console.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>

#include "evenspan/core/error.h"
#include "evenspan/core/progress.h"
#include "evenspan/train/stop_signals.h"
#include "evenspan/train/tokenization.h"
#include "train/amounts.h"

namespace evenspan::train {

namespace {

// How the step was cut, and what it took beside what the model says; empty mostly.
std::string micro_batches_text(const StepReport& r) {
  std::string text;
  const auto [least, most] = std::minmax_element(r.micro_batches.begin(), r.micro_batches.end());
  if (*least != *most) {
    text = join_text("  ", *least, " to ", *most, " micro-batches");
  } else if (*most > 1) {
    text = join_text("  ", *most, " micro-batches");
  }
  if (r.modelled_seconds > 0) {
    char seconds[64];
    std::snprintf(seconds, sizeof seconds, "  %.3g s, modelled %.3g s", r.seconds, r.modelled_seconds);
    text += seconds;
  }
  return text;
}

// What the tokens of the data are: bytes, or what made them.
std::string tokens_text(const Config& config, const Corpus& corpus) {
  if (corpus.vocabulary() == kByteVocabulary) return "bytes, and 256 at the end of a document";
  const std::optional<Tokenization> t = tokenization(config);
  return t ? "of the tokenizer in " + t->tokenizer : "as they are in " + config.data.path;
}

// What a micro-batch may hold: "at most 8192 tokens, 4096 on a rank, cut by auto".
std::string limits_text(const Config& config, int64_t capacity_tokens, int32_t num_ranks) {  // of a replica
  return join_text("at most ", capacity_tokens * num_ranks, " tokens, ", capacity_tokens, " on a rank, cut by ",
                   config.parallel.batch_planner);
}

// "4", "4, 2 replicas of 2".
std::string ranks_text(const comm::Mesh& mesh) {
  if (mesh.num_replicas() == 1) return std::to_string(mesh.num_ranks());
  return join_text(mesh.num_ranks(), ", ", mesh.num_replicas(), " replicas of ", mesh.sequence_ranks());
}

}  // namespace

std::string progress_line(const StepReport& r, const StepLine& line) {
  char text[400];
  std::snprintf(
      text, sizeof text,
      "step %4lld/%lld  loss %.4f  rate %.2e  norm %.3g  %.0f tokens/s  %s left%s  work %.3f of the mean  sent "
      "%s + %s  memory %s",
      static_cast<long long>(r.step), static_cast<long long>(line.last_step), r.loss, r.learning_rate, r.gradient_norm,
      line.tokens_per_second, duration_text(line.seconds_left).c_str(), micro_batches_text(r).c_str(),
      r.work_max_over_mean, bytes_text(static_cast<double>(total(r.attention_bytes))).c_str(),
      bytes_text(static_cast<double>(total(r.optimizer_bytes))).c_str(),
      bytes_text(static_cast<double>(r.peak_rss_bytes)).c_str());
  return text;
}

Console::Console(int64_t first_step, int64_t last_step, int64_t interval)
    : first_(first_step), last_(last_step), interval_(interval) {}

void Console::step(const StepReport& report) {
  tokens_ += report.tokens;
  seconds_ += report.seconds;
  const auto now = Clock::now();
  if (report.step == first_) start_ = now;
  if (report.step != first_ && report.step != last_ && report.step % interval_ != 0) return;
  // Evaluations and checkpoints between the steps are in the mean; the first step, which also warms up, is not.
  const auto done = static_cast<double>(report.step - first_);
  const double mean = done > 0 ? std::chrono::duration<double>(now - start_).count() / done : report.seconds;
  const StepLine line{last_, static_cast<double>(tokens_) / seconds_, mean * static_cast<double>(last_ - report.step)};
  std::printf("%s\n", progress_line(report, line).c_str());
  std::fflush(stdout);
  tokens_ = 0;
  seconds_ = 0;
}

std::string schedule_text(const OptimizerConfig& c, int64_t num_steps) {
  std::string text;
  if (c.warmup_steps > 0) {
    text = join_text("0 to ", c.learning_rate, " in ", c.warmup_steps, " steps, then ");
  }
  const int64_t last = c.decay_steps > 0 ? c.decay_steps : num_steps;
  if (last <= c.warmup_steps || c.min_learning_rate == c.learning_rate) {
    return text + (c.warmup_steps > 0 ? "constant" : join_text("constant, ", c.learning_rate));
  }
  text += c.warmup_steps > 0 ? "a cosine" : join_text("a cosine from ", c.learning_rate);
  text += join_text(" to ", c.min_learning_rate, " at step ", last);
  return text + (last < num_steps ? ", which stays" : "");
}

std::string opening_text(const Config& config, const Setup& setup, const MetricsFile::Header& h, const Corpus& corpus,
                         int64_t state_bytes) {
  char line[160];
  std::snprintf(line, sizeof line, "%.2f million parameters", static_cast<double>(h.num_parameters) * 1e-6);
  std::string text = join_text(
      "model: ", setup.model.model_type, ", ", line, ", ", h.dtype, "\ndata: ", h.documents, " documents with ",
      h.epoch_tokens, " tokens, ", h.held_out, " held out; dropped ", h.dropped_empty, " empty, ", h.dropped_invalid,
      " not UTF-8\ntokens: ", tokens_text(config, corpus), "\nranks: ", ranks_text(setup.mesh), ", ", h.strategy,
      ", optimiser state ", bytes_text(static_cast<double>(state_bytes)), " each\n");
  if (const std::optional<int64_t> capacity = setup.micro_batches.capacity_tokens()) {
    text += "micro-batches: " + limits_text(config, *capacity, setup.mesh.sequence_ranks()) + "\n";
  }
  text += "learning rate: " + schedule_text(config.optimizer, config.run.steps) + "\n";
  return text + (setup.note.empty() ? "" : "note: " + setup.note + "\n");
}

std::string closing_text(const Config& config, const Summary& s) {
  std::string text;
  if (s.stopped_by != 0) {
    text = join_text("stopped by ", signal_name(s.stopped_by), " after step ", s.steps, " of ", config.run.steps, "\n");
    if (s.checkpoint.empty()) {
      return text +
             "nothing is kept, since run.folder is empty; with a folder there would be a checkpoint to resume from\n";
    }
    return text + join_text("checkpoint: ", s.checkpoint,
                            "\nto go on: the same command with --run.resume latest, which repeats and skips nothing\n");
  }
  char line[256];
  if (s.tokens == 0) {
    std::snprintf(line, sizeof line, "nothing to do: all of %lld steps were done before",
                  static_cast<long long>(config.run.steps));
  } else {
    std::snprintf(line, sizeof line, "done: %lld steps, loss %.4f -> %.4f", static_cast<long long>(s.steps),
                  s.first_loss, s.last_loss);
  }
  text = line;
  if (!std::isnan(s.held_out_loss)) {
    std::snprintf(line, sizeof line, ", held-out loss %.4f", s.held_out_loss);
    text += line;
  }
  std::snprintf(line, sizeof line, ", %lld tokens in %.1f s\n", static_cast<long long>(s.tokens), s.seconds);
  text += line;
  return text + (s.checkpoint.empty() ? "" : "checkpoint: " + s.checkpoint + "\n");
}

}  // namespace evenspan::train
