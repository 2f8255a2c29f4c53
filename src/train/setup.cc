#include "train/setup.h"

#include <algorithm>
#include <filesystem>
#include <utility>
#include <vector>

#include "evenspan/core/error.h"
#include "evenspan/machine/run_scenario.h"
#include "evenspan/nn/safetensors.h"
#include "evenspan/plan/linear.h"
#include "evenspan/simulate/planner.h"
#include "evenspan/train/checkpoint.h"
#include "evenspan/train/tokenization.h"
#include "plan/strategy/strategy.h"
#include "train/model_work.h"

namespace evenspan::train {
namespace {

namespace fs = std::filesystem;

at::ScalarType compute_type(plan::ElementType type) {
  return type == plan::ElementType::f64 ? at::kDouble : type == plan::ElementType::bf16 ? at::kBFloat16 : at::kFloat;
}

nn::ModelConfig load_model(const Config& config) {
  const nn::ModelConfig model = nn::load_model_config(config.model.config);
  if (config.data.max_document_tokens > model.max_position_embeddings) {
    fail_invalid("[train] data.max_document_tokens must be at most the model's max_position_embeddings, they are ",
                 config.data.max_document_tokens, " and ", model.max_position_embeddings);
  }
  const std::string& transport = config.parallel.transport;
  const simulate::Model simulated = simulated_model(model, plan::ElementType::f32);
  for (const simulate::LinearLayers& kind : simulated.linear) {
    plan::validate(kind.shape, {transport, 0});
  }
  if (model.num_softmax_layers() == model.num_hidden_layers && transport != ParallelConfig().transport) {
    fail_invalid("[train] parallel.transport is \"", transport,
                 "\", which has no effect on a model without linear layers; "
                 "leave it out");
  }
  if (!config.model.weights.empty()) {
    const auto differing = nn::differences(nn::load_model_config(config.model.weights), model);
    if (!differing.empty()) {
      fail_invalid("[train] model.weights is of another model than model.config: ", differing.front(),
                   " (weights against configuration)");
    }
  }
  return model;
}

plan::Request request_of(const Config& config, const nn::ModelConfig& model, plan::ElementType element,
                         const comm::Mesh& mesh) {
  plan::Request request;
  request.shape = plan::AttentionShape{static_cast<int32_t>(model.num_attention_heads),
                                       static_cast<int32_t>(model.num_key_value_heads),
                                       static_cast<int32_t>(model.head_dim), element};
  request.topology = plan::topology_of_replica(
      plan::make_topology(mesh.num_ranks(), static_cast<int32_t>(config.parallel.ranks_per_node)), mesh.num_replicas());
  request.cost = simulate::cost_model(simulated_model(model, element));
  request.options.strategy = config.parallel.strategy;
  request.options.token_slack = config.parallel.token_slack;
  request.options.ranks_per_group = static_cast<int32_t>(config.parallel.ranks_per_group);
  plan::Request tried = request;  // a batch as small as there is one
  tried.documents = plan::Documents(std::vector<int64_t>{1}, plan::Mask{});
  plan::validate(tried);
  if (config.parallel.strategy != simulate::kAuto) plan::find_strategy(config.parallel.strategy);
  return request;
}

// That takes every document there may be.
machine::MicroBatchPlanner checked(machine::MicroBatchPlanner planner, int64_t most_tokens) {
  planner.check_length(most_tokens, "a document of data.max_document_tokens");
  planner.plan(std::vector<int64_t>{most_tokens});
  return planner;
}

std::string checkpoint_to_resume(const Config& config) {
  const std::string& resume = config.run.resume;
  if (resume == "latest") return latest_checkpoint(checkpoint_folder(config));
  std::error_code error;
  if (!resume.empty() && !fs::is_directory(resume, error)) {
    fail_invalid("[train] run.resume must be a checkpoint folder, such as run/checkpoints/step-00000100, or latest; ",
                 resume, fs::exists(resume, error) ? " is a file" : " does not exist");
  }
  if (!resume.empty() && checkpoint_step(fs::path(resume).lexically_normal().string()) < 0) {
    for (const fs::path& folder : {fs::path(resume) / "checkpoints", fs::path(resume)}) {
      const std::string newest = latest_checkpoint(folder.string());
      if (newest.empty()) continue;
      fail_invalid("[train] run.resume must be a checkpoint folder, ", resume, " holds some; the newest is ", newest,
                   ", give that, or set run.resume = \"latest\" with run.folder = the run's folder");
    }
  }
  return resume;
}

// Without a last slash.
fs::path without_end(const fs::path& path) { return path.has_filename() ? path : path.parent_path(); }

// Whether they are the same or `inner` is below `outer`. REQUIRES: both are canonical.
bool is_in(const fs::path& inner, const fs::path& outer) {
  return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end();
}

}  // namespace

Setup prepare(const Config& config, int32_t num_ranks) {
  validate(config);
  check_run_folder(config);
  const plan::ElementType element = plan::parse_element_type(config.model.dtype);
  Setup setup;
  setup.type = compute_type(element);
  setup.model = load_model(config);
  setup.mesh = comm::Mesh(num_ranks, config.parallel.replicas);
  setup.request = request_of(config, setup.model, element, setup.mesh);
  simulate::Model model = simulated_model(setup.model, element);
  model.states.transport = config.parallel.transport;
  const machine::MicroBatchLimits limits = micro_batch_limits(config.parallel);
  machine::RunScenario run =
      machine::scenario_of_run({config.parallel.strategy, config.parallel.profile, config.parallel.topology, num_ranks,
                                static_cast<int32_t>(config.parallel.ranks_per_node), setup.mesh.num_replicas()},
                               model);
  if (limits.any()) {
    setup.micro_batches = checked(
        machine::MicroBatchPlanner(model, setup.mesh.sequence_ranks(), run.scenario, limits, setup.mesh.num_replicas()),
        config.data.max_document_tokens);
  } else {
    setup.micro_batches = machine::MicroBatchPlanner(
        run.scenario ? simulate::cost_model(run.scenario->profile, model) : setup.request.cost,
        setup.mesh.num_replicas());
  }
  setup.scenario = std::move(run.scenario);
  setup.note = std::move(run.note);
  setup.resume = checkpoint_to_resume(config);
  tokenization(config);  // what the tokens of the text are is clear
  return setup;
}

std::string checkpoint_folder(const Config& config) { return (fs::path(config.run.folder) / "checkpoints").string(); }

void make_run_folders(const Config& config) {
  if (config.run.folder.empty()) return;
  for (const fs::path folder : {config.run.folder, checkpoint_folder(config)}) {
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) fail(ErrorKind::resource, "[train] cannot make the folder ", folder.string(), ": ", error.message());
    const fs::path tried = folder / ".evenspan-writes-here";
    nn::write_file(tried.string(), "\n");
    fs::remove(tried, error);
  }
}

void try_run_folders(const Config& config) {
  if (config.run.folder.empty()) return;
  std::vector<fs::path> made;  // innermost first
  std::error_code error;
  for (fs::path path = fs::absolute(checkpoint_folder(config)); !path.empty() && !fs::exists(path, error);
       path = path.parent_path()) {
    made.push_back(path);
  }
  make_run_folders(config);
  for (const fs::path& path : made) fs::remove(path, error);
}

void check_run_folder(const Config& config) {
  std::error_code error;
  if (config.run.folder.empty() || !fs::is_directory(config.data.path, error)) return;
  const fs::path run = without_end(fs::weakly_canonical(config.run.folder));
  const fs::path data = without_end(fs::weakly_canonical(config.data.path));
  const fs::path inside = run.lexically_relative(data);
  const auto& excluded = config.data.exclude;
  const bool leaves = std::any_of(inside.begin(), inside.end(), [&](const fs::path& name) {
    return std::find(excluded.begin(), excluded.end(), name.string()) != excluded.end();
  });
  if (leaves) return;
  if (is_in(run, data)) {
    fail_invalid("[train] run.folder must not be in data.path, whose files are the data: ", run.string(), " is in ",
                 data.string(), "; give a run.folder elsewhere, or name it in data.exclude");
  }
  if (is_in(data, run)) {
    fail_invalid("[train] data.path must not be in run.folder: ", data.string(), " is in ", run.string(),
                 "; give a run.folder of its own");
  }
}

}  // namespace evenspan::train
