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

#include "evenspan/core/error.h"
#include "evenspan/core/progress.h"
#include "evenspan/nn/decoder.h"
#include "evenspan/nn/loss.h"
#include "evenspan/nn/safetensors.h"
#include "evenspan/plan/plan_cache.h"
#include "evenspan/run/executable.h"
#include "evenspan/simulate/planner.h"
#include "evenspan/train/batches.h"
#include "evenspan/train/checkpoint.h"
#include "evenspan/train/optimizer.h"
#include "evenspan/train/tokenization.h"
#include "train/amounts.h"
#include "train/console.h"
#include "train/metrics.h"
#include "train/model_work.h"
#include "train/resume_notes.h"
#include "train/setup.h"
#include "train/waiting.h"

namespace evenspan::train {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Training batches seldom come again, so few of their plans are kept; those of the evaluation come again each time.
constexpr size_t kTrainingPlans = 4;
constexpr size_t kMostEvaluationPlans = 64;

// One rank's run.
class Run {
 public:
  Run(const Config& config, const comm::Communicator& communicator, const Stop& stop);
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
  plan::PlanCache::Make planner() const;
  plan::Request request(const Batch& batch) const;
  // The batch at the cursor, and where the cursor stands after it.
  struct Upcoming {
    Batch batch;
    Cursor after;
  };
  Upcoming upcoming() const;
  at::Tensor loss(const Batch& batch, const run::Executable& executable, int64_t labels) const;
  std::shared_ptr<const plan::Plan> get_plan(plan::PlanCache* plans, const plan::Request& request);
  StepReport step(int64_t number);
  void fill_traffic(StepReport* report, const run::Executable& executable, double local_loss);
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
  Batches batches_;
  ShardedAdamW optimizer_;
  nn::Decoder decoder_;
  MetricsFile metrics_;
  plan::PlanCache plans_, evaluation_plans_;
  Cursor cursor_;
  std::optional<Upcoming> next_;  // whose plan was asked for
  int64_t first_step_ = 1;
  int64_t tokens_seen_ = 0;
  double plan_seconds_ = 0, checkpoint_seconds_ = 0;  // that the last took
  Companions companions_;
  std::vector<std::string> notes_;  // of a resume
  Summary summary_;
};

Run::Run(const Config& config, const comm::Communicator& communicator, const Stop& stop)
    : config_(config),
      stop_(stop),
      communicator_(comm::make_recording_communicator(communicator, recorded_)),
      setup_(prepare(config, communicator_.size())),
      batches_(open(), config.data),
      optimizer_(nn::parameter_specs(model_), setup_.type, config.optimizer, communicator_),
      decoder_(model_, optimizer_.parameters()),
      plans_(planner(), kTrainingPlans),
      evaluation_plans_(planner(), std::min(kMostEvaluationPlans, static_cast<size_t>(config.run.eval_batches))) {
  start();
}

// Nothing is read before it is known that the run's files can be written.
std::shared_ptr<const Corpus> Run::open() const {
  if (leads()) try_run_folders(config_);
  Progress shown("reading data", progress());
  std::shared_ptr<const Corpus> corpus = open_corpus(with_tokens(config_), &shown);
  if (corpus->vocabulary() > model_.vocab_size) {
    fail_invalid("[train] the model's vocab_size must be at least ", corpus->vocabulary(),
                 ", the tokens of the byte tokenizer, it is ", model_.vocab_size);
  }
  return corpus;
}

void Run::start() {
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
void Run::load_weights() {
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

void Run::resume() {
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

void Run::write_header() {
  companions_ = read_companions(config_);
  const Corpus& corpus = batches_.corpus();
  if (!config_.run.folder.empty()) {
    make_run_folders(config_);
    // Metrics that do not fit are refused before anything is written.
    metrics_ = MetricsFile((std::filesystem::path(config_.run.folder) / "metrics.jsonl").string(), first_step_ - 1);
    nn::write_file((std::filesystem::path(config_.run.folder) / "config.toml").string(), to_toml(config_));
  }
  const MetricsFile::Header header{
      communicator_.size(),     config_.parallel.strategy, config_.model.dtype,   nn::num_elements(optimizer_.specs()),
      model_.num_hidden_layers, batches_.num_pieces(),     batches_.num_tokens(), batches_.num_held_out(),
      corpus.dropped().empty,   corpus.dropped().invalid};
  metrics_.write(header);
  std::printf("model: %s, %.2f million parameters, %s\n", model_.model_type.c_str(),
              static_cast<double>(header.num_parameters) * 1e-6, header.dtype.c_str());
  std::printf("data: %lld documents with %lld tokens, %lld held out; dropped %lld empty, %lld not UTF-8\n",
              static_cast<long long>(header.documents), static_cast<long long>(header.epoch_tokens),
              static_cast<long long>(header.held_out), static_cast<long long>(header.dropped_empty),
              static_cast<long long>(header.dropped_invalid));
  std::printf("tokens: %s\n", tokens_text(config_, corpus).c_str());
  std::printf("ranks: %d, %s, optimiser state %s each\n", header.num_ranks, header.strategy.c_str(),
              bytes_text(static_cast<double>(optimizer_.state_bytes())).c_str());
  std::printf("learning rate: %s\n", schedule_text(config_.optimizer, config_.run.steps).c_str());
  if (!setup_.note.empty()) std::printf("note: %s\n", setup_.note.c_str());
  if (!setup_.resume.empty()) {
    std::printf("resumed after step %lld from %s\n", static_cast<long long>(first_step_ - 1), setup_.resume.c_str());
  } else if (!config_.run.resume.empty()) {
    std::printf("note: there is no checkpoint in %s yet, so the run begins with step 1\n",
                checkpoint_folder(config_).c_str());
  }
  for (const std::string& note : notes_) std::printf("note: %s\n", note.c_str());
  std::fflush(stdout);
}

plan::PlanCache::Make Run::planner() const {
  return [this](const plan::Request& request) -> plan::LayerPlans {
    simulate::RunnablePlan planned = simulate::plan_to_run(request, setup_.scenario ? &*setup_.scenario : nullptr);
    if (!planned.note.empty() && leads()) std::printf("note: %s\n", planned.note.c_str());
    return {std::move(planned.plan)};
  };
}

plan::Request Run::request(const Batch& batch) const {
  plan::Request request = setup_.request;
  request.documents = plan::Documents(lengths(batch), plan::Mask{});
  return request;
}

Run::Upcoming Run::upcoming() const {
  Cursor cursor = cursor_;
  Batch batch = batches_.next(&cursor);
  return {std::move(batch), cursor};
}

// This rank's share of the mean over the labels of all ranks.
at::Tensor Run::loss(const Batch& batch, const run::Executable& executable, int64_t labels) const {
  const LocalTokens tokens =
      load_tokens(batches_.corpus(), batch, executable.plan().placement.spans(communicator_.rank()), model_.vocab_size);
  const at::Tensor hidden = decoder_.forward(tokens.ids, tokens.positions, executable, config_.parallel.transport);
  return nn::tiled_cross_entropy(hidden, decoder_.head_weight(), tokens.labels,
                                 labels > 0 ? 1.0 / static_cast<double>(labels) : 0.0);
}

std::shared_ptr<const plan::Plan> Run::get_plan(plan::PlanCache* plans, const plan::Request& request) {
  const auto start = Clock::now();
  const Waiting waiting(join_text("planning ", request.documents.size(), " documents"), plan_seconds_, progress());
  auto plan = plans->get(request).front();
  plan_seconds_ = std::max(plan_seconds_ / 2, seconds_since(start));
  return plan;
}

StepReport Run::step(int64_t number) {
  const auto start = Clock::now();
  StepReport report;
  report.planned_ahead = next_.has_value();
  if (!next_) next_ = upcoming();
  const Batch batch = std::move(next_->batch);
  cursor_ = next_->after;
  next_.reset();
  const std::vector<int64_t> batch_lengths = lengths(batch);
  const auto asked = Clock::now();
  const auto plan = get_plan(&plans_, request(batch));
  report.plan_seconds = seconds_since(asked);
  report.plan_strategy = plan->request.options.strategy;
  if (number < config_.run.steps) {
    next_ = upcoming();
    plans_.prefetch(request(next_->batch));
  }
  const run::Executable executable(plan, communicator_);
  report.step = number;
  report.labels = num_labels(batch);
  report.tokens = plan->request.documents.total_tokens();
  report.documents = static_cast<int64_t>(batch.size());
  const at::Tensor local_loss = loss(batch, executable, report.labels);
  torch::autograd::backward({local_loss}, {});
  report.learning_rate = learning_rate_at(config_.optimizer, number, config_.run.steps);
  report.gradient_norm = optimizer_.step(report.learning_rate);
  fill_traffic(&report, executable, local_loss.item<double>());
  tokens_seen_ += report.tokens;
  summary_.tokens += report.tokens;
  report.seconds = seconds_since(start);
  if (leads())
    metrics_.write(report, config_.run.record_placement ? &batch_lengths : nullptr,
                   config_.run.record_placement ? &plan->placement : nullptr);
  return report;
}

// What every rank saw, put together on every rank.
void Run::fill_traffic(StepReport* report, const run::Executable& executable, double local_loss) {
  const int64_t ranks = communicator_.size();
  // loss, arena, signal, bytes of attention to each rank, bytes of the optimiser to each rank
  constexpr int64_t kBytes = 3;
  at::Tensor own = at::zeros({kBytes + 2 * ranks}, at::kDouble);
  auto* row = own.mutable_data_ptr<double>();
  row[0] = local_loss;
  row[1] = static_cast<double>(
      buffer_bytes(model_, executable.plan(), executable.program(), config_.parallel.transport, communicator_.rank()));
  row[2] = static_cast<double>(received());
  for (const comm::Recorded::Item& item : recorded_->sends) {
    const int64_t group = item.operation.starts_with("optimizer") ? ranks : 0;
    row[kBytes + group + item.peer.value] += static_cast<double>(item.num_bytes);
  }
  const std::vector<at::Tensor> rows = comm::all_gather(communicator_, own, "train: report");
  recorded_->sends.clear();
  for (const at::Tensor& tensor : rows) {
    const auto* r = tensor.const_data_ptr<double>();
    report->loss += r[0];
    report->arena_bytes = std::max(report->arena_bytes, static_cast<int64_t>(r[1]));
    summary_.stopped_by = std::max(summary_.stopped_by, static_cast<int>(r[2]));
    const auto bytes = [&](int64_t from) {
      std::vector<int64_t> to;
      for (int64_t i = 0; i < ranks; ++i) to.push_back(static_cast<int64_t>(r[from + i]));
      return to;
    };
    report->attention_bytes.push_back(bytes(kBytes));
    report->optimizer_bytes.push_back(bytes(kBytes + ranks));
  }
  if (!leads()) return;
  const plan::Metrics metrics = plan::measure(executable.plan());
  report->tokens_max_over_mean = metrics.tokens_max_over_mean;
  report->work_max_over_mean = metrics.work_max_over_mean;
  report->rank_tokens = metrics.tokens;
  report->rank_work = metrics.work_seconds;
  const ForwardBytes sent = forward_bytes(model_, executable.plan(), metrics, config_.parallel.transport);
  report->forward_bytes = sent.planned;
  report->ring_bytes = sent.by_ring;
  report->peak_rss_bytes = peak_rss_bytes();
}

// Whether a rank has received a signal; all of them ask together.
bool Run::told_to_stop() {
  const at::Tensor own = at::full({1}, received(), at::kDouble);
  for (const at::Tensor& signal : comm::all_gather(communicator_, own, "train: stop")) {
    summary_.stopped_by = std::max(summary_.stopped_by, static_cast<int>(signal.item<double>()));
  }
  recorded_->sends.clear();
  return summary_.stopped_by != 0;
}

std::optional<double> Run::evaluate(int64_t step) {
  const std::vector<Batch> batches = batches_.held_out(config_.run.eval_batches);
  if (batches.empty()) return std::numeric_limits<double>::quiet_NaN();
  const c10::AutoGradMode no_gradients(false);
  int64_t labels = 0;
  for (const Batch& batch : batches) labels += num_labels(batch);
  at::Tensor sum = at::zeros({}, at::kDouble);
  Progress shown("evaluating", progress());
  for (size_t i = 0; i < batches.size(); ++i) {
    shown.at(static_cast<double>(i), static_cast<double>(batches.size()));
    const auto plan = get_plan(&evaluation_plans_, request(batches[i]));
    if (i + 1 < batches.size()) evaluation_plans_.prefetch(request(batches[i + 1]));
    sum.add_(loss(batches[i], run::Executable(plan, communicator_), labels));
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
void Run::evaluate_before_first_step() {
  const at::Tensor lacks = at::full({1}, metrics_.lacks_evaluation() ? 1 : 0, at::kDouble);
  const bool is_due = comm::all_reduce(communicator_, lacks, "train: evaluation").item<double>() > 0;
  recorded_->sends.clear();
  if (is_due) evaluate(first_step_ - 1);
}

void Run::checkpoint(int64_t step) {
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

Summary Run::finish() {
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
  summary_.plans = plans_.counts();
  summary_.evaluation_plans = evaluation_plans_.counts();
  if (!leads()) return summary_;
  if (finished) metrics_.write(summary_);
  std::printf("%s", closing_text(config_, summary_).c_str());
  std::fflush(stdout);
  return summary_;
}

}  // namespace

void check(const Config& config, int32_t num_ranks) {
  prepare(config, num_ranks);
  make_run_folders(config);
}

Summary train(const Config& config, const comm::Communicator& communicator, const Stop& stop) {
  const auto cores = static_cast<int64_t>(std::max(1u, std::thread::hardware_concurrency()));
  const int64_t threads = config.parallel.threads_per_rank > 0 ? config.parallel.threads_per_rank
                                                               : std::max<int64_t>(1, cores / communicator.size());
  at::set_num_threads(static_cast<int>(threads));
  return Run(config, communicator, stop).finish();
}

}  // namespace evenspan::train
