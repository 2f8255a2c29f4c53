#include "bindings/planner.h"

#include <algorithm>
#include <limits>

#include "evenspan/core/error.h"
#include "evenspan/plan/text.h"
#include "evenspan/simulate/layers.h"
#ifdef EVENSPAN_WITH_MACHINE
#include "evenspan/machine/machine_files.h"
#include "evenspan/machine/micro_batches.h"
#include "evenspan/machine/run_scenario.h"
#endif

namespace evenspan::python {
namespace {

simulate::Model read_model(const std::string& file, [[maybe_unused]] std::string* note) {
#ifdef EVENSPAN_WITH_MACHINE
  machine::ModelFile read = machine::parse_model(machine::read_text_file(file), file);
  *note = std::move(read.note);
  return std::move(read.model);
#else
  fail(ErrorKind::unsupported, "[plan] this build reads no model files, ", file,
       " was given; build evenspan with nlohmann-json, or give four sizes");
#endif
}

std::string to_string(const LayersArgument& layers) {
  std::string text;
  for (const auto& [count, window] : layers) {
    text += join_text(text.empty() ? "" : ", ", count, window ? " with a window of " : " without a window");
    if (window) text += join_text(*window, " keys");
  }
  return text;
}

// Gives the model these kinds of layers; a model from a file must have them.
void set_layers(const LayersArgument& layers, const ModelArgument& argument, simulate::Model* model) {
  if (layers.empty()) return;
  int64_t num_layers = 0;
  std::vector<simulate::WindowLayers> windows;
  for (const auto& [count, window] : layers) {
    if (count < 1 || (window && *window < 1)) {
      fail_invalid("[plan] layers are ", to_string(layers), "; numbers of layers and windows are at least 1");
    }
    num_layers += count;
    if (window) windows.push_back({count, *window});
  }
  const auto narrower = [](const simulate::WindowLayers& a, const simulate::WindowLayers& b) {
    return a.window < b.window;
  };
  std::sort(windows.begin(), windows.end(), narrower);
  const bool twice = std::adjacent_find(windows.begin(), windows.end(),
                                        [&](const auto& a, const auto& b) { return !narrower(a, b); }) != windows.end();
  if (twice || layers.size() - windows.size() > 1 || num_layers > std::numeric_limits<int32_t>::max()) {
    fail_invalid("[plan] layers are ", to_string(layers), "; give each kind of layer once, fewer than 2^31 in all");
  }
  const bool is_file = argument && std::holds_alternative<std::string>(*argument);
  const auto same = [](const simulate::WindowLayers& a, const simulate::WindowLayers& b) {
    return a.count == b.count && a.window == b.window;
  };
  if (argument &&
      (num_layers != model->num_softmax_layers() ||
       (is_file && !std::equal(windows.begin(), windows.end(), model->windows.begin(), model->windows.end(), same)))) {
    fail_invalid("[plan] layers are ", to_string(layers), ", and the model has ", model->num_softmax_layers(),
                 " softmax layers",
                 is_file ? join_text(", ", model->num_unwindowed_layers(), " of them without a window") : "",
                 "; give the layers of the model");
  }
  if (!argument) model->num_layers = static_cast<int32_t>(num_layers);
  model->windows = std::move(windows);
}

// The model that is weighed, with attention of `shape`. A file must say the same of it; what of it is left out is
// noted.
simulate::Model make_model(const ModelArgument& argument, const plan::AttentionShape& shape,
                           const LayersArgument& layers, std::string* note) {
  simulate::Model model;
  if (const auto* file = argument ? std::get_if<std::string>(&*argument) : nullptr) {
    model = read_model(*file, note);
    const plan::AttentionShape& own = model.shape;
    if (own.num_heads != shape.num_heads || own.num_kv_heads != shape.num_kv_heads || own.head_dim != shape.head_dim) {
      fail_invalid("[plan] ", *file, " has ", own.num_heads, " query heads and ", own.num_kv_heads, " kv heads of ",
                   own.head_dim, ", the plan ", shape.num_heads, " and ", shape.num_kv_heads, " of ", shape.head_dim,
                   "; give the plan those of the model");
    }
  } else if (argument) {
    std::tie(model.num_layers, model.hidden, model.intermediate, model.vocabulary) = std::get<ModelSizes>(*argument);
  }
  model.shape = shape;
  model.set_element(shape.element);
  set_layers(layers, argument, &model);
  simulate::validate(model);
  return model;
}

}  // namespace

plan::Documents make_documents(const std::vector<int64_t>& lengths, const MaskArgument& mask) {
  if (const auto* one = std::get_if<std::string>(&mask)) return {lengths, plan::parse_mask(*one)};
  const auto& masks = std::get<std::vector<std::string>>(mask);
  if (masks.size() != lengths.size()) {
    fail_invalid("[plan] there must be one mask for all documents or one for each, there are ", masks.size(),
                 " masks and ", lengths.size(), " documents");
  }
  std::vector<plan::Document> documents;
  for (size_t i = 0; i < lengths.size(); ++i) documents.push_back({lengths[i], plan::parse_mask(masks[i])});
  return plan::Documents(std::move(documents));
}

Planner::Planner(PlannerOptions options)
    : layers_(std::move(options.layers)),
      model_(make_model(options.model,
                        {options.heads, options.kv_heads, options.head_dim, plan::parse_element_type(options.dtype)},
                        layers_, &note_)),
      cache_([this](const plan::Request& request) { return make(request); },
             static_cast<size_t>(std::max<int64_t>(options.capacity, 1))) {
  request_.shape = model_.shape;
  request_.topology = plan::make_topology(options.ranks, options.ranks_per_node);
  request_.options.strategy = options.strategy;
  request_.options.token_slack = options.token_slack;
  request_.options.ranks_per_group = options.ranks_per_group;
  request_.options.memory_budget_bytes = options.memory_budget;
  read_scenario(options);
  if (options.model) request_.cost = simulate::cost_model(model_);
}

void Planner::prefetch(const std::vector<int64_t>& lengths, const MaskArgument& mask) {
  cache_.prefetch(request_of(lengths, mask));
}

std::vector<std::shared_ptr<PlanHandle>> Planner::plans(const std::vector<int64_t>& lengths, const MaskArgument& mask) {
  std::vector<std::shared_ptr<PlanHandle>> handles;
  for (const auto& made : cache_.get(request_of(lengths, mask))) {
    const auto known = std::find_if(handles.begin(), handles.end(), [&](const auto& h) { return h->plan == made; });
    handles.push_back(known != handles.end() ? *known : std::make_shared<PlanHandle>(made));
  }
  return handles;
}

std::shared_ptr<PlanHandle> Planner::plan_of_groups(const std::vector<int64_t>& lengths, const MaskArgument& mask,
                                                    const std::vector<std::vector<int64_t>>& groups) const {
  plan::Request request = request_of(lengths, mask);
  request.options.strategy = "ulysses";
  if (scenario_) simulate::weigh(*scenario_, &request);
  std::vector<std::vector<Rank>> of_ranks;
  const int64_t num_ranks = request.num_ranks();
  for (const std::vector<int64_t>& group : groups) {
    std::vector<Rank>& ranks = of_ranks.emplace_back();
    for (const int64_t rank : group) ranks.emplace_back(static_cast<int32_t>(std::clamp<int64_t>(rank, -1, num_ranks)));
  }
  return std::make_shared<PlanHandle>(plan::make_plan_of_groups(std::move(request), of_ranks));
}

std::vector<std::vector<int64_t>> Planner::micro_batches([[maybe_unused]] const std::vector<int64_t>& lengths,
                                                         [[maybe_unused]] int64_t tokens,
                                                         [[maybe_unused]] const std::string& planner) const {
#ifdef EVENSPAN_WITH_MACHINE
  const machine::MicroBatchPlanner planned(model_, request_.num_ranks(), scenario_, {planner, tokens, 0});
  return planned.plan(lengths).documents;
#else
  fail(ErrorKind::unsupported, "[batch] this build cuts no batches; build evenspan with nlohmann-json");
#endif
}

std::string Planner::take_note() {
  const std::lock_guard lock(note_mutex_);
  return std::exchange(note_, "");
}

std::map<std::string, int64_t> Planner::counts() const {
  const plan::PlanCache::Counts counts = cache_.counts();
  return {{"made", counts.made},
          {"made_ahead", counts.made_ahead},
          {"hits", counts.hits},
          {"ready", counts.ready},
          {"waits", counts.waits}};
}

void Planner::add_note(const std::string& note) {
  const std::lock_guard lock(note_mutex_);
  if (!note.empty()) note_ += (note_.empty() ? "" : "; ") + note;
}

void Planner::read_scenario(const PlannerOptions& options) {
#ifdef EVENSPAN_WITH_MACHINE
  machine::RunScenario run =
      machine::scenario_of_run({options.strategy, options.profile.value_or(""), options.topology.value_or(""),
                                request_.num_ranks(), options.ranks_per_node},
                               model_);
  scenario_ = std::move(run.scenario);
  add_note(run.note);
#else
  if (options.profile || options.topology || options.strategy == simulate::kAuto) {
    fail(ErrorKind::unsupported,
         "[plan] this build reads no profiles, and a profile, a topology or the strategy auto was given; build "
         "evenspan with nlohmann-json");
  }
#endif
}

plan::Request Planner::request_of(const std::vector<int64_t>& lengths, const MaskArgument& mask) const {
  plan::Request request = request_;
  request.documents = make_documents(lengths, mask);
  return request;
}

plan::LayerPlans Planner::make(plan::Request request) {
  const plan::Documents asked = request.documents;
  if (!scenario_) simulate::plan_for_layers(model_, &request);
  simulate::RunnablePlan planned = simulate::plan_to_run(std::move(request), scenario_ ? &*scenario_ : nullptr);
  add_note(planned.note);
  if (!layers_.empty()) {
    plan::LayerPlans plans;
    for (const auto& [count, window] : layers_) {
      plans.push_back(simulate::plan_seen_through(planned.plan, window.value_or(0)));
    }
    return plans;
  }
  if (planned.plan->request.documents.all() != asked.all()) {
    fail_invalid("[plan] every layer of the model has a window, the widest of ", model_.windows.back().window,
                 " keys, and the mask allows more; give mask=\"window:", model_.windows.back().window, "\"");
  }
  return {std::move(planned.plan)};
}

}  // namespace evenspan::python
