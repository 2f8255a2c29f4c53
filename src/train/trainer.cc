#include "evenspan/train/trainer.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "evenspan/core/error.h"
#include "evenspan/core/progress.h"
#include "evenspan/nn/decoder.h"
#include "evenspan/nn/loss.h"
#include "evenspan/nn/safetensors.h"
#include "evenspan/run/executable.h"
#include "evenspan/simulate/planner.h"
#include "evenspan/train/batches.h"
#include "evenspan/train/checkpoint.h"
#include "evenspan/train/optimizer.h"
#include "evenspan/train/tokenization.h"
#include "train/batch_planner.h"
#include "train/console.h"
#include "train/metrics.h"
#include "train/model_work.h"
#include "train/resume_notes.h"
#include "train/setup.h"
#include "train/step_report.h"
#include "train/waiting.h"

namespace evenspan::train {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Training batches seldom come again, so few of their plans are kept; those of the evaluation come again each time.
constexpr size_t kTrainingPlans = 4;
constexpr size_t kMostEvaluationPlans = 64;

// A communicator of the ranks that share documents: all of them where there is one replica, else a group.
comm::Communicator replica_of(const comm::Communicator& all, const comm::Mesh& mesh) {
  return mesh.num_replicas() == 1 ? all : all.split(mesh.sequence_group(all.rank()), "train: replicas");
}

// One rank's run.
class TrainingRun {
 public:
  TrainingRun(const Config& config, const comm::Communicator& communicator, const Stop& stop);
  Summary finish();

 private:
  bool leads() const { return communicator_.rank() == 0; }
  ProgressSink progress() const { return leads() ? standard_error_sink() : silent_sink(); }
  int received() const { return stop_.received ? stop_.received() : 0; }
  std::shared_ptr<const Corpus> open() const;
  void start();
  void load_weights();
  void resume();
  void write_header();
  plan::PlanCache::Make make_plan() const;
  // The batch at the cursor, and where the cursor stands after it.
  struct Upcoming {
    Batch batch;
    Cursor after;
  };
  Upcoming upcoming() const;
  at::Tensor loss(const PlannedMicroBatch& micro_batch, const run::Executable& executable, int64_t labels) const;
  void compare(const PlannedBatch& planned) const;
  OwnView accumulate_gradients(const PlannedBatch& planned, int64_t labels);
  StepReport step(int64_t number);
  bool told_to_stop();
  // The loss of the held-out documents, not a number if there are none; no value where a signal came before the end.
  std::optional<double> evaluate(int64_t step);
  void evaluate_before_first_step();
  void checkpoint(int64_t step);

  const Config& config_;
  const Stop& stop_;
  std::shared_ptr<comm::Recorded> recorded_ = std::make_shared<comm::Recorded>();
  comm::Communicator communicator_;
  Setup setup_;
  const nn::ModelConfig& model_ = setup_.model;
  comm::Communicator replica_;  // the ranks that share documents with this one
  Batches batches_;
  ShardedAdamW optimizer_;
  nn::Decoder decoder_;
  MetricsFile metrics_;
  BatchPlanner planner_, evaluation_planner_;
  Cursor cursor_;
  std::optional<Upcoming> next_;  // whose plans were asked for
  int64_t first_step_ = 1;
  int64_t tokens_seen_ = 0;
  double checkpoint_seconds_ = 0;  // that the last took
  Companions companions_;
  std::vector<std::string> notes_;  // of a resume
  Summary summary_;
};

TrainingRun::TrainingRun(const Config& config, const comm::Communicator& communicator, const Stop& stop)
    : config_(config),
      stop_(stop),
      communicator_(comm::make_recording_communicator(communicator, recorded_)),
      setup_(prepare(config, communicator_.size())),
      replica_(replica_of(communicator_, setup_.mesh)),
      batches_(open(), config.data),
      optimizer_(nn::parameter_specs(model_), setup_.type, config.optimizer, communicator_),
      decoder_(model_, optimizer_.parameters()),
      planner_(setup_, setup_.mesh.replica_of(communicator_.rank()), make_plan(), kTrainingPlans, progress()),
      evaluation_planner_(setup_, setup_.mesh.replica_of(communicator_.rank()), make_plan(), kMostEvaluationPlans,
                          progress()) {
  start();
}

// Nothing is read before it is known that the run's files can be written.
std::shared_ptr<const Corpus> TrainingRun::open() const {
  if (leads()) try_run_folders(config_);
  Progress shown("reading data", progress());
  std::shared_ptr<const Corpus> corpus = open_corpus(with_tokens(config_), &shown);
  if (corpus->vocabulary() > model_.vocab_size) {
    fail_invalid("[train] the model's vocab_size must be at least ", corpus->vocabulary(),
                 ", the tokens of the byte tokenizer, it is ", model_.vocab_size);
  }
  return corpus;
}

void TrainingRun::start() {
  if (setup_.resume.empty()) {
    load_weights();
  } else {
    resume();
  }
  recorded_->sends.clear();
  const std::string newest = config_.run.folder.empty() ? std::string() : latest_checkpoint(checkpoint_folder(config_));
  if (!newest.empty() && checkpoint_step(newest) >= first_step_) {
    fail_invalid(
        "[train] run.folder must not hold checkpoints of steps that this run has yet to do; it begins with step ",
        first_step_, " and ", newest, " is there: set run.resume = \"latest\", or another run.folder, or remove it");
  }
  // No rank goes on to write before all have looked.
  comm::barrier(communicator_, "train: start");
  recorded_->sends.clear();
  if (stop_.defer) stop_.defer();
  if (leads()) write_header();
}

// Initial weights, or those of a folder.
void TrainingRun::load_weights() {
  const Waiting waiting("loading weights", 0, progress());
  at::Tensor own = at::empty({optimizer_.end() - optimizer_.begin()}, at::kDouble);
  auto* values = own.mutable_data_ptr<double>();
  const nn::Parameters weights = config_.model.weights.empty()
                                     ? nn::Parameters()
                                     : nn::load_weights(config_.model.weights, model_, optimizer_.master_type());
  int64_t offset = 0;  // of the parameter, in the flat order
  for (const nn::ParameterSpec& spec : optimizer_.specs()) {
    const int64_t from = std::max(optimizer_.begin(), offset);
    const int64_t to = std::min(optimizer_.end(), offset + spec.num_elements());
    if (from < to && weights.size() == 0) {
      nn::initial_values(model_, spec, static_cast<uint64_t>(config_.model.seed), from - offset, to - offset,
                         values + (from - optimizer_.begin()));
    } else if (from < to) {
      own.narrow(0, from - optimizer_.begin(), to - from)
          .copy_(weights.at(spec.name).reshape({-1}).narrow(0, from - offset, to - from));
    }
    offset += spec.num_elements();
  }
  optimizer_.set_masters(own);
}

void TrainingRun::resume() {
  const Waiting waiting("loading the checkpoint", 0, progress());
  const Checkpoint loaded = load_checkpoint(setup_.resume, model_, optimizer_);
  if (loaded.trainer.data_fingerprint != batches_.fingerprint()) {
    fail_invalid("[train] a run resumes with the data that it was trained on; ", setup_.resume,
                 " has other documents, data.seed, batch_tokens, max_document_tokens or held_out_fraction");
  }
  batches_.check(loaded.trainer.cursor, setup_.resume);
  optimizer_.restore(loaded.state);
  cursor_ = loaded.trainer.cursor;
  first_step_ = loaded.trainer.step + 1;
  tokens_seen_ = loaded.trainer.tokens_seen;
  notes_ = resume_notes(config_, loaded.trainer.config, first_step_);
}

void TrainingRun::write_header() {
  companions_ = read_companions(config_);
  const Corpus& corpus = batches_.corpus();
  if (!config_.run.folder.empty()) {
    make_run_folders(config_);
    // Metrics that do not fit are refused before anything is written.
    metrics_ = MetricsFile((std::filesystem::path(config_.run.folder) / "metrics.jsonl").string(), first_step_ - 1);
    nn::write_file((std::filesystem::path(config_.run.folder) / "config.toml").string(), to_toml(config_));
  }
  const MetricsFile::Header header{communicator_.size(),
                                   setup_.mesh.num_replicas(),
                                   config_.parallel.strategy,
                                   config_.model.dtype,
                                   nn::num_elements(optimizer_.specs()),
                                   model_.num_hidden_layers,
                                   batches_.num_pieces(),
                                   batches_.num_tokens(),
                                   batches_.num_held_out(),
                                   corpus.dropped().empty,
                                   corpus.dropped().invalid};
  metrics_.write(header);
  std::printf("%s", opening_text(config_, setup_, header, corpus, optimizer_.state_bytes()).c_str());
  if (!setup_.resume.empty()) {
    std::printf("resumed after step %lld from %s\n", static_cast<long long>(first_step_ - 1), setup_.resume.c_str());
  } else if (!config_.run.resume.empty()) {
    std::printf("note: there is no checkpoint in %s yet, so the run begins with step 1\n",
                checkpoint_folder(config_).c_str());
  }
  for (const std::string& note : notes_) std::printf("note: %s\n", note.c_str());
  std::fflush(stdout);
}

plan::PlanCache::Make TrainingRun::make_plan() const {
  return [this](const plan::Request& request) -> plan::LayerPlans {
    simulate::RunnablePlan planned = simulate::plan_to_run(request, setup_.scenario ? &*setup_.scenario : nullptr);
    if (!planned.note.empty() && leads()) std::printf("note: %s\n", planned.note.c_str());
    return {std::move(planned.plan)};
  };
}

TrainingRun::Upcoming TrainingRun::upcoming() const {
  Cursor cursor = cursor_;
  Batch batch = batches_.next(&cursor);
  return {std::move(batch), cursor};
}

// This rank's share of the mean over the labels of all ranks.
at::Tensor TrainingRun::loss(const PlannedMicroBatch& micro_batch, const run::Executable& executable,
                             int64_t labels) const {
  const LocalTokens tokens = load_tokens(batches_.corpus(), micro_batch.pieces,
                                         micro_batch.plan->placement.spans(replica_.rank()), model_.vocab_size);
  const at::Tensor hidden = decoder_.forward(tokens.ids, tokens.positions, executable, config_.parallel.transport);
  return nn::tiled_cross_entropy(hidden, decoder_.head_weight(), tokens.labels,
                                 labels > 0 ? 1.0 / static_cast<double>(labels) : 0.0);
}

// Ranks of a replica compare their plans when they bind them; that all replicas have other documents shows here.
void TrainingRun::compare(const PlannedBatch& planned) const {
  if (setup_.mesh.num_replicas() == 1) return;
  compare_divisions(planned, communicator_);
  recorded_->sends.clear();
}

// Forward and backward of all micro-batches of the replica; every rank goes from one to the next by itself.
OwnView TrainingRun::accumulate_gradients(const PlannedBatch& planned, int64_t labels) {
  compare(planned);
  std::vector<run::Executable> executables;  // ranks compare their plans before the first, and not between two
  for (const PlannedMicroBatch& micro_batch : planned.micro_batches) {
    executables.emplace_back(micro_batch.plan, replica_);
  }
  OwnView own;
  for (size_t i = 0; i < executables.size(); ++i) {
    if (i > 0) optimizer_.accumulate();
    const run::Executable executable = std::exchange(executables[i], run::Executable());  // its arena ends with it
    const at::Tensor local_loss = loss(planned.micro_batches[i], executable, labels);
    torch::autograd::backward({local_loss}, {});
    own.loss += local_loss.item<double>();
    own.arena_bytes = std::max(own.arena_bytes, buffer_bytes(model_, executable.plan(), executable.program(),
                                                             config_.parallel.transport, replica_.rank()));
  }
  return own;
}

StepReport TrainingRun::step(int64_t number) {
  const auto start = Clock::now();
  StepReport report;
  report.planned_ahead = next_.has_value();
  if (!next_) next_ = upcoming();
  const Batch batch = std::move(next_->batch);
  cursor_ = next_->after;
  next_.reset();
  const auto asked = Clock::now();
  const PlannedBatch planned = planner_.get(batch);
  report.plan_seconds = seconds_since(asked);
  describe_division(planned, &report);
  if (config_.parallel.profile.empty()) report.modelled_seconds = report.bound_seconds = 0;  // of operations
  if (number < config_.run.steps) {
    next_ = upcoming();
    planner_.prefetch(next_->batch);
  }
  report.step = number;
  report.labels = num_labels(batch);
  report.tokens = num_tokens(batch);
  report.documents = static_cast<int64_t>(batch.size());
  OwnView own = accumulate_gradients(planned, report.labels);
  report.learning_rate = learning_rate_at(config_.optimizer, number, config_.run.steps);
  report.gradient_norm = optimizer_.step(report.learning_rate);
  own.signal = received();
  if (replica_.rank() == 0) {
    own.plans = measure_plans(planned, replica_.size(), model_, config_.parallel.transport);
  }
  summary_.stopped_by =
      std::max(summary_.stopped_by, gather_views(own, setup_.mesh, communicator_, recorded_.get(), &report));
  if (config_.run.record_placement) {
    report.placement = gather_placement(planned, replica_.rank(), communicator_);
    recorded_->sends.clear();
  }
  if (leads()) report.peak_rss_bytes = peak_rss_bytes();
  tokens_seen_ += report.tokens;
  summary_.tokens += report.tokens;
  report.seconds = seconds_since(start);
  if (leads()) metrics_.write(report, batch);
  return report;
}

// Whether a rank has received a signal; all of them ask together.
bool TrainingRun::told_to_stop() {
  const at::Tensor own = at::full({1}, received(), at::kDouble);
  for (const at::Tensor& signal : comm::all_gather(communicator_, own, "train: stop")) {
    summary_.stopped_by = std::max(summary_.stopped_by, static_cast<int>(signal.item<double>()));
  }
  recorded_->sends.clear();
  return summary_.stopped_by != 0;
}

std::optional<double> TrainingRun::evaluate(int64_t step) {
  const std::vector<Batch> batches = batches_.held_out(config_.run.eval_batches);
  if (batches.empty()) return std::numeric_limits<double>::quiet_NaN();
  const c10::AutoGradMode no_gradients(false);
  int64_t labels = 0;
  for (const Batch& batch : batches) labels += num_labels(batch);
  at::Tensor sum = at::zeros({}, at::kDouble);
  Progress shown("evaluating", progress());
  for (size_t i = 0; i < batches.size(); ++i) {
    shown.at(static_cast<double>(i), static_cast<double>(batches.size()));
    const PlannedBatch planned = evaluation_planner_.get(batches[i]);
    if (i + 1 < batches.size()) evaluation_planner_.prefetch(batches[i + 1]);
    compare(planned);
    for (const PlannedMicroBatch& micro_batch : planned.micro_batches) {
      sum.add_(loss(micro_batch, run::Executable(micro_batch.plan, replica_), labels));
    }
    if (told_to_stop() && i + 1 < batches.size()) return std::nullopt;
  }
  const double mean = comm::all_reduce(communicator_, sum, "train: evaluation").item<double>();
  recorded_->sends.clear();
  if (leads()) {
    metrics_.write_evaluation(step, mean, labels);
    std::printf("step %4lld  held-out loss %.4f over %lld labels\n", static_cast<long long>(step), mean,
                static_cast<long long>(labels));
    std::fflush(stdout);
  }
  return mean;
}

// Where a signal ended the run before it, so that a run that goes on has the evaluations of one that was not stopped.
void TrainingRun::evaluate_before_first_step() {
  const at::Tensor lacks = at::full({1}, metrics_.lacks_evaluation() ? 1 : 0, at::kDouble);
  const bool is_due = comm::all_reduce(communicator_, lacks, "train: evaluation").item<double>() > 0;
  recorded_->sends.clear();
  if (is_due) evaluate(first_step_ - 1);
}

void TrainingRun::checkpoint(int64_t step) {
  const auto start = Clock::now();
  const Waiting waiting("writing a checkpoint", checkpoint_seconds_, progress());
  const ShardedAdamW::State state = optimizer_.gather_state();
  if (leads()) {
    TrainerState trainer;
    trainer.step = step;
    trainer.cursor = cursor_;
    trainer.data_fingerprint = batches_.fingerprint();
    trainer.data_seed = config_.data.seed;
    trainer.model_seed = config_.model.seed;
    trainer.tokens_seen = tokens_seen_;
    save_checkpoint(checkpoint_folder(config_), model_, companions_, optimizer_, state, trainer, config_,
                    config_.run.keep_checkpoints);
  }
  comm::barrier(communicator_, "checkpoint: written");
  recorded_->sends.clear();
  summary_.checkpoint = checkpoint_path(checkpoint_folder(config_), step);
  checkpoint_seconds_ = seconds_since(start);
}

Summary TrainingRun::finish() {
  const auto start = Clock::now();
  const auto due = [](int64_t step, int64_t interval) { return interval > 0 && step % interval == 0; };
  const auto stopped = [this] { return summary_.stopped_by != 0; };
  const int64_t last = config_.run.steps;
  Console console(first_step_, last, config_.run.log_interval);
  summary_.steps = first_step_ - 1;
  if (first_step_ > 1 && first_step_ <= last && due(first_step_ - 1, config_.run.eval_interval)) {
    evaluate_before_first_step();
    if (stopped() && !config_.run.folder.empty()) summary_.checkpoint = setup_.resume;
  }
  for (int64_t i = first_step_; i <= last && !stopped(); ++i) {
    const StepReport report = step(i);
    if (leads()) console.step(report);
    if (i == first_step_) summary_.first_loss = report.loss;
    summary_.last_loss = report.loss;
    summary_.steps = i;
    if (i < last && !stopped() && due(i, config_.run.eval_interval)) evaluate(i);
    const bool ends = i == last || stopped();
    if (!config_.run.folder.empty() && (ends || due(i, config_.run.checkpoint_interval))) checkpoint(i);
  }
  std::optional<double> held_out;
  if (!stopped()) held_out = evaluate(summary_.steps);
  const bool finished = held_out.has_value();
  if (finished) summary_.stopped_by = 0;  // by a signal that came in the last batch of all
  summary_.held_out_loss = held_out.value_or(std::numeric_limits<double>::quiet_NaN());
  summary_.seconds = seconds_since(start);
  summary_.plans = planner_.counts();
  summary_.evaluation_plans = evaluation_planner_.counts();
  if (!leads()) return summary_;
  if (finished) metrics_.write(summary_);
  std::printf("%s", closing_text(config_, summary_).c_str());
  std::fflush(stdout);
  return summary_;
}

}  // namespace

void check(const Config& config, int32_t num_ranks) {
  prepare(config, num_ranks);
  try_run_folders(config);
}

Summary train(const Config& config, const comm::Communicator& communicator, const Stop& stop) {
  const auto cores = static_cast<int64_t>(std::max(1u, std::thread::hardware_concurrency()));
  const int64_t threads = config.parallel.threads_per_rank > 0 ? config.parallel.threads_per_rank
                                                               : std::max<int64_t>(1, cores / communicator.size());
  at::set_num_threads(static_cast<int>(threads));
  return TrainingRun(config, communicator, stop).finish();
}

}  // namespace evenspan::train
