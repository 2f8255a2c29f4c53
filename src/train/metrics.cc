#include "train/metrics.h"

#include <nlohmann/json.hpp>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "evenspan/core/error.h"
#include "train/amounts.h"
#include "train/run_record.h"

namespace evenspan::train {
namespace {

using Json = nlohmann::ordered_json;

}  // namespace

MetricsFile::MetricsFile(const std::string& path, int64_t resumed_step) : path_(path) {
  const KeptLines kept = resumed_step > 0 ? lines_until(path, resumed_step) : KeptLines();
  lacks_evaluation_ = kept.has_step && !kept.has_evaluation;
  // Under another name first: on a full disk the old lines stay.
  const std::string part = path + ".part";
  out_.open(part, std::ios::trunc);
  write_line(kept.text);
  std::error_code error;
  std::filesystem::rename(part, path, error);
  if (error) fail(ErrorKind::resource, "[train] cannot write ", path, ": ", error.message());
}

void MetricsFile::write_line(const std::string& line) {
  errno = 0;
  out_ << line << std::flush;
  if (out_) return;
  const std::string reason = errno != 0 ? std::strerror(errno) : "the system refuses";
  fail(ErrorKind::resource, "[train] cannot write ", path_, ": ", reason,
       "; the lines and checkpoints written before stay, make room and resume");
}

void MetricsFile::write(const Header& h) {
  if (!out_.is_open()) return;
  const Json json = {{"run",
                      {{"ranks", h.num_ranks},
                       {"replicas", h.num_replicas},
                       {"strategy", h.strategy},
                       {"dtype", h.dtype},
                       {"parameters", h.num_parameters},
                       {"layers", h.num_layers},
                       {"documents", h.documents},
                       {"epoch_tokens", h.epoch_tokens},
                       {"held_out_documents", h.held_out},
                       {"dropped_empty", h.dropped_empty},
                       {"dropped_invalid", h.dropped_invalid}}}};
  write_line(json.dump() + "\n");
}

void MetricsFile::write(const StepReport& r, const Batch& batch) {
  if (!out_.is_open()) return;
  Json json = {{"step", r.step},
               {"loss", r.loss},
               {"tokens", r.tokens},
               {"labels", r.labels},
               {"documents", r.documents},
               {"micro_batches", *std::max_element(r.micro_batches.begin(), r.micro_batches.end())},
               {"replica_micro_batches", r.micro_batches},
               {"learning_rate", r.learning_rate},
               {"gradient_norm", r.gradient_norm},
               {"seconds", r.seconds},
               {"plan_seconds", r.plan_seconds},
               {"planned_ahead", r.planned_ahead},
               {"plan_strategy", r.plan_strategy},
               {"tokens_per_second", static_cast<double>(r.tokens) / r.seconds},
               {"tokens_max_over_mean", r.tokens_max_over_mean},
               {"work_max_over_mean", r.work_max_over_mean},
               {"rank_tokens", r.rank_tokens},
               {"rank_work_seconds", r.rank_work},
               {"attention_sent_bytes", r.attention_bytes},
               {"optimizer_sent_bytes", r.optimizer_bytes},
               {"forward_sent_bytes", r.forward_bytes},
               {"ring_forward_sent_bytes", r.ring_bytes},
               {"arena_bytes", r.arena_bytes},
               {"peak_rss_bytes", r.peak_rss_bytes}};
  if (r.modelled_seconds > 0) {
    json["modelled_seconds"] = r.modelled_seconds;
    json["bound_seconds"] = r.bound_seconds;
  }
  if (!r.placement.empty()) {
    json["lengths"] = lengths(batch);
    json["placement"] = r.placement;
  }
  write_line(json.dump() + "\n");
}

void MetricsFile::write_evaluation(int64_t step, double loss, int64_t labels) {
  if (!out_.is_open()) return;
  write_line(Json{{"evaluation", {{"step", step}, {"loss", loss}, {"labels", labels}}}, {"step", step}}.dump() + "\n");
}

void MetricsFile::write(const Summary& s) {
  if (!out_.is_open()) return;
  Json json = {{"final", true},      {"steps", s.steps},     {"first_loss", s.first_loss}, {"last_loss", s.last_loss},
               {"tokens", s.tokens}, {"seconds", s.seconds}, {"checkpoint", s.checkpoint}};
  const plan::PlanCache::Counts& plans = s.plans;
  json["plans"] = {{"made", plans.made},
                   {"made_ahead", plans.made_ahead},
                   {"ready", plans.ready},
                   {"waits", plans.waits},
                   {"evaluation_made", s.evaluation_plans.made},
                   {"evaluation_hits", s.evaluation_plans.hits}};
  json["held_out_loss"] = std::isnan(s.held_out_loss) ? Json(nullptr) : Json(s.held_out_loss);
  write_line(json.dump() + "\n");
}

int64_t peak_rss_bytes() {
  struct rusage usage {};
  return ::getrusage(RUSAGE_SELF, &usage) == 0 ? int64_t{usage.ru_maxrss} * 1024 : 0;
}

}  // namespace evenspan::train
