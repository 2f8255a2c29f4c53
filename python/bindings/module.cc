// evenspan._evenspan: plans, executables, calibration and the trainer for Python. python/evenspan/_evenspan.pyi gives
// the types.
#include <pybind11/functional.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "evenspan/comm/communicator.h"
#include "evenspan/core/error.h"
#include "evenspan/core/progress.h"
#include "evenspan/plan/linear.h"
#include "evenspan/plan/plan_cache.h"
#include "evenspan/plan/program.h"
#include "evenspan/plan/text.h"
#include "evenspan/run/executable.h"
#include "evenspan/run/linear.h"
#include "evenspan/simulate/layers.h"
#include "evenspan/simulate/planner.h"
#ifdef EVENSPAN_WITH_CALIBRATE
#include "evenspan/calibrate/command.h"
#include "evenspan/simulate/prediction.h"
#endif
#ifdef EVENSPAN_WITH_MACHINE
#include "evenspan/machine/machine_files.h"
#include "evenspan/machine/run_scenario.h"
#endif
#ifdef EVENSPAN_WITH_TRAIN
#include <malloc.h>

#include <cstdio>

#include "evenspan/train/config.h"
#include "evenspan/train/stop_signals.h"
#include "evenspan/train/tokenization.h"
#include "evenspan/train/trainer.h"
#endif

namespace evenspan::python {
namespace {

namespace py = pybind11;
using Unlocked = py::call_guard<py::gil_scoped_release>;

// A plan as Python holds it, measured once, when something of it is asked for.
class PlanHandle {
 public:
  explicit PlanHandle(std::shared_ptr<const plan::Plan> its_plan) : plan(std::move(its_plan)) {}
  const plan::Metrics& metrics() const {
    if (!metrics_) metrics_ = plan::measure(*plan);
    return *metrics_;
  }
  const std::shared_ptr<const plan::Plan> plan;

 private:
  mutable std::optional<plan::Metrics> metrics_;  // under the interpreter's lock
};

const char* exception_name(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::invalid_argument:
      return "InvalidArgumentError";
    case ErrorKind::unsupported:
      return "UnsupportedError";
    case ErrorKind::communication:
      return "CommunicationError";
    case ErrorKind::resource:
      return "ResourceError";
  }
  return "Error";
}

void set_python_error(const Error& error) {
  const py::object type = py::module_::import("evenspan._errors").attr(exception_name(error.kind()));
  PyErr_SetString(type.ptr(), error.what());
}

void translate(std::exception_ptr thrown) {
  try {
    if (thrown) std::rethrow_exception(thrown);
  } catch (const Error& error) {
    set_python_error(error);
  }
}

// A backward pass ends in torch, which does not ask `translate`.
[[noreturn]] void throw_to_python(const Error& error) {
  const py::gil_scoped_acquire gil;
  set_python_error(error);
  throw py::error_already_set();
}

using MaskArgument = std::variant<std::string, std::vector<std::string>>;

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

using ModelSizes = std::tuple<int32_t, int64_t, int64_t, int64_t>;  // layers, hidden, intermediate, vocabulary
using ModelArgument = std::optional<std::variant<ModelSizes, std::string>>;

// The kinds of softmax layers: how many, and the keys that a query sees; none: all before it.
using LayersArgument = std::vector<std::pair<int32_t, std::optional<int64_t>>>;

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

// Plans batches that differ in their documents only, and the next one in the background.
class Planner {
 public:
  Planner(int32_t ranks, int32_t ranks_per_node, const std::optional<std::string>& topology,
          const std::string& strategy, int32_t heads, int32_t kv_heads, int32_t head_dim, const std::string& dtype,
          double token_slack, int32_t ranks_per_group, int64_t memory_budget, const std::optional<std::string>& profile,
          const ModelArgument& model, LayersArgument layers, int64_t capacity)
      : layers_(std::move(layers)),
        model_(make_model(model, {heads, kv_heads, head_dim, plan::parse_element_type(dtype)}, layers_, &note_)),
        cache_([this](const plan::Request& request) { return make(request); },
               static_cast<size_t>(std::max<int64_t>(capacity, 1))) {
    request_.shape = model_.shape;
    request_.topology = plan::make_topology(ranks, ranks_per_node);
    request_.options.strategy = strategy;
    request_.options.token_slack = token_slack;
    request_.options.ranks_per_group = ranks_per_group;
    request_.options.memory_budget_bytes = memory_budget;
    read_scenario(profile, topology, ranks_per_node);
    if (model) request_.cost = simulate::cost_model(model_);
  }

  void prefetch(const std::vector<int64_t>& lengths, const MaskArgument& mask) {
    cache_.prefetch(request_of(lengths, mask));
  }
  // Kinds of layers that have the same plan have the same object.
  std::vector<std::shared_ptr<PlanHandle>> plans(const std::vector<int64_t>& lengths, const MaskArgument& mask) {
    std::vector<std::shared_ptr<PlanHandle>> handles;
    for (const auto& made : cache_.get(request_of(lengths, mask))) {
      const auto known = std::find_if(handles.begin(), handles.end(), [&](const auto& h) { return h->plan == made; });
      handles.push_back(known != handles.end() ? *known : std::make_shared<PlanHandle>(made));
    }
    return handles;
  }
  // What a user should know of the last choice and was not told; empty mostly.
  std::string take_note() {
    const std::lock_guard lock(note_mutex_);
    return std::exchange(note_, "");
  }
  std::map<std::string, int64_t> counts() const {
    const plan::PlanCache::Counts counts = cache_.counts();
    return {{"made", counts.made},
            {"made_ahead", counts.made_ahead},
            {"hits", counts.hits},
            {"ready", counts.ready},
            {"waits", counts.waits}};
  }

 private:
  void add_note(const std::string& note) {
    const std::lock_guard lock(note_mutex_);
    if (!note.empty()) note_ += (note_.empty() ? "" : "; ") + note;
  }
  // Sets the scenario, and a note where its profile is the default one.
  void read_scenario(const std::optional<std::string>& profile, const std::optional<std::string>& topology,
                     [[maybe_unused]] int32_t ranks_per_node) {
#ifdef EVENSPAN_WITH_MACHINE
    machine::RunScenario run = machine::scenario_of_run(
        {request_.options.strategy, profile.value_or(""), topology.value_or(""), request_.num_ranks(), ranks_per_node},
        model_);
    scenario_ = std::move(run.scenario);
    add_note(run.note);
#else
    if (profile || topology || request_.options.strategy == simulate::kAuto) {
      fail(ErrorKind::unsupported,
           "[plan] this build reads no profiles, and a profile, a topology or the strategy auto was given; build "
           "evenspan with nlohmann-json");
    }
#endif
  }
  plan::Request request_of(const std::vector<int64_t>& lengths, const MaskArgument& mask) const {
    plan::Request request = request_;
    request.documents = make_documents(lengths, mask);
    return request;
  }
  plan::LayerPlans make(plan::Request request) {
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

  std::mutex note_mutex_;
  std::string note_;
  const LayersArgument layers_;  // empty: one plan, of the masks that are given
  const simulate::Model model_;
  plan::Request request_;                       // without documents
  std::optional<simulate::Scenario> scenario_;  // set by the constructor alone
  plan::PlanCache cache_;                       // last: its thread uses the rest
};

std::vector<std::vector<std::tuple<int64_t, int64_t, int64_t>>> placement(const PlanHandle& self) {
  std::vector<std::vector<std::tuple<int64_t, int64_t, int64_t>>> ranks;
  for (int32_t r = 0; r < self.plan->placement.num_ranks(); ++r) {
    auto& spans = ranks.emplace_back();
    for (const auto& [document, span] : self.plan->placement.spans(Rank(r))) {
      spans.emplace_back(document.value, span.begin, span.end);
    }
  }
  return ranks;
}

void bind_plan(py::module_& m) {
  m.attr("DEFAULT_STRATEGY") = plan::kDefaultStrategy;
  py::class_<PlanHandle, std::shared_ptr<PlanHandle>>(m, "Plan")
      .def_property_readonly("lengths",
                             [](const PlanHandle& p) {
                               std::vector<int64_t> lengths;
                               for (const auto& d : p.plan->request.documents.all()) lengths.push_back(d.length);
                               return lengths;
                             })
      .def_property_readonly("ranks", [](const PlanHandle& p) { return p.plan->request.num_ranks(); })
      .def_property_readonly("strategy", [](const PlanHandle& p) { return p.plan->request.options.strategy; })
      .def_property_readonly("heads", [](const PlanHandle& p) { return p.plan->request.shape.num_heads; })
      .def_property_readonly("kv_heads", [](const PlanHandle& p) { return p.plan->request.shape.num_kv_heads; })
      .def_property_readonly("head_dim", [](const PlanHandle& p) { return p.plan->request.shape.head_dim; })
      .def_property_readonly("dtype",
                             [](const PlanHandle& p) { return std::string(to_string(p.plan->request.shape.element)); })
      .def_property_readonly("num_tokens", [](const PlanHandle& p) { return p.plan->request.documents.total_tokens(); })
      .def_property_readonly("placement", placement)
      .def_property_readonly("tokens", [](const PlanHandle& p) { return p.metrics().tokens; })
      .def_property_readonly("pairs", [](const PlanHandle& p) { return p.metrics().pairs; })
      .def_property_readonly("work", [](const PlanHandle& p) { return p.metrics().work_seconds; })
      .def_property_readonly("sent_bytes", [](const PlanHandle& p) { return p.metrics().sent_bytes; })
      .def_property_readonly("metrics",
                             [](const PlanHandle& p) {
                               py::dict out;
                               out["tokens_max_over_mean"] = p.metrics().tokens_max_over_mean;
                               out["work_max_over_mean"] = p.metrics().work_max_over_mean;
                               out["sent_bytes_total"] = p.metrics().sent_bytes_total;
                               out["ring_bytes_total"] = p.metrics().ring_bytes_total;
                               return out;
                             })
      .def(
          "with_mask",
          [](const PlanHandle& p, const py::object& mask) {
            const auto read = py::module_::import("evenspan._arguments")
                                  .attr("one_mask_or_more")("with_mask", mask)
                                  .cast<MaskArgument>();
            const py::gil_scoped_release unlocked;
            std::vector<int64_t> lengths;
            for (const auto& d : p.plan->request.documents.all()) lengths.push_back(d.length);
            return PlanHandle(plan::make_plan_on(*p.plan, make_documents(lengths, read)));
          },
          py::arg("mask"))
      .def_property_readonly("hash", [](const PlanHandle& p) { return p.plan->hash.combined(); })
      .def("__copy__", [](const py::object& self) { return self; })
      .def("__deepcopy__", [](const py::object& self, const py::dict&) { return self; })
      .def(
          "text", [](const PlanHandle& p) { return plan::print(plan::lower_all(*p.plan)); }, Unlocked());
  py::class_<Planner, std::shared_ptr<Planner>>(m, "Planner")
      .def(py::init<int32_t, int32_t, const std::optional<std::string>&, const std::string&, int32_t, int32_t, int32_t,
                    const std::string&, double, int32_t, int64_t, const std::optional<std::string>&,
                    const ModelArgument&, LayersArgument, int64_t>(),
           Unlocked(), py::kw_only(), py::arg("ranks"), py::arg("ranks_per_node"), py::arg("topology"),
           py::arg("strategy"), py::arg("heads"), py::arg("kv_heads"), py::arg("head_dim"), py::arg("dtype"),
           py::arg("token_slack"), py::arg("ranks_per_group"), py::arg("memory_budget"), py::arg("profile"),
           py::arg("model"), py::arg("layers"), py::arg("capacity"))
      .def("prefetch", &Planner::prefetch, Unlocked(), py::arg("lengths"), py::arg("mask"))
      .def("plans", &Planner::plans, Unlocked(), py::arg("lengths"), py::arg("mask"))
      .def("take_note", &Planner::take_note)
      .def_property_readonly("counts", &Planner::counts);
}

// Frees its backend without the interpreter's lock, whoever drops it last: a process group then joins threads of its
// own, and these want the lock to let go of tensors.
comm::Communicator freed_without_lock(comm::Communicator made) {
  comm::Backend* backend = made.backend().get();
  const auto release = [held = std::move(made)](comm::Backend*) mutable {
    std::optional<py::gil_scoped_release> unlocked;
    if (PyGILState_Check()) unlocked.emplace();
    held = {};
  };
  return comm::Communicator(std::shared_ptr<comm::Backend>(backend, release));
}

// A kernel made of a Python function of (query, key, value, gate, beta, scale, state) that returns output and state.
using PythonKernel = std::function<std::pair<at::Tensor, at::Tensor>(
    const at::Tensor&, const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
    const std::optional<at::Tensor>&, double, const at::Tensor&)>;

std::optional<at::Tensor> optional(const at::Tensor& x) { return x.defined() ? std::optional(x) : std::nullopt; }

std::pair<at::Tensor, std::optional<at::Tensor>> linear_attention(
    const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const std::optional<at::Tensor>& gate,
    const std::optional<at::Tensor>& beta, const std::optional<at::Tensor>& initial_state,
    const run::Executable& executable, const std::string& transport, int32_t state_blocks, double scale, bool normalize,
    bool final_state, const std::shared_ptr<run::SavedStates>& states, const std::optional<PythonKernel>& kernel) {
  run::LinearOptions options{transport, state_blocks, scale, normalize, final_state, states, nullptr};
  if (kernel) {
    options.kernel = run::make_function_kernel([f = *kernel](const run::LinearOperands& x, const at::Tensor& state) {
      return f(x.query, x.key, x.value, optional(x.gate), optional(x.beta), x.scale, state);
    });
  }
  const at::Tensor none;
  const auto result = run::linear_attention(
      {query, key, value, gate.value_or(none), beta.value_or(none), initial_state.value_or(none)}, executable, options);
  return {result.output, optional(result.final_state)};
}

void bind_linear(py::module_& m) {
  py::class_<run::SavedStates, std::shared_ptr<run::SavedStates>>(m, "SavedStates").def(py::init<>());
  m.def("linear_attention", linear_attention, Unlocked(), py::arg("query"), py::arg("key"), py::arg("value"),
        py::arg("gate"), py::arg("beta"), py::arg("initial_state"), py::arg("executable"), py::kw_only(),
        py::arg("transport"), py::arg("state_blocks"), py::arg("scale"), py::arg("normalize"), py::arg("final_state"),
        py::arg("states"), py::arg("kernel"));
  m.def(
      "short_convolution",
      [](const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
         const run::Executable& executable) {
        return run::short_convolution(x, weight, bias.value_or(at::Tensor()), executable);
      },
      Unlocked(), py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("executable"));
  m.def("transports", [] {
    std::vector<std::string> names;
    for (const auto& transport : plan::transports()) names.emplace_back(transport.name);
    return names;
  });
}

void bind_run(py::module_& m) {
  py::class_<comm::Communicator>(m, "Communicator")
      .def(py::init([](const std::optional<std::string>& group_name, double timeout) {
             comm::CommunicatorOptions options;
             options.timeout = std::chrono::milliseconds(static_cast<int64_t>(timeout * 1000));
             if (group_name) return freed_without_lock(comm::make_c10d_communicator(*group_name, options));
             return comm::make_threads_communicators(1, options).front();
           }),
           Unlocked(), py::arg("group_name"), py::arg("timeout"))
      .def_property_readonly("rank", [](const comm::Communicator& c) { return c.rank().value; })
      .def_property_readonly("size", &comm::Communicator::size)
      .def(
          "all_gather", [](const comm::Communicator& c, const at::Tensor& t) { return comm::all_gather(c, t); },
          Unlocked(), py::arg("tensor"))
      .def(
          "all_reduce", [](const comm::Communicator& c, const at::Tensor& t) { return comm::all_reduce(c, t); },
          Unlocked(), py::arg("tensor"))
      .def_property_readonly("call_hash", &comm::Communicator::call_hash)
      .def(
          "compare",
          [](const comm::Communicator& c, const std::vector<std::pair<std::string, uint64_t>>& parts,
             const std::string& operation, const std::string& things, const std::string& remedy,
             const std::string& device) {
            std::vector<comm::Part> all;
            for (const auto& [name, value] : parts) all.push_back({name, value});
            comm::compare(c, all, {operation, things, remedy, at::Device(device)});
          },
          Unlocked(), py::arg("parts"), py::kw_only(), py::arg("operation"), py::arg("things"), py::arg("remedy"),
          py::arg("device") = "cpu")
      .def("refuse", &comm::Communicator::refuse, Unlocked(), py::arg("operation"), py::arg("reason"))
      .def("abort", &comm::Communicator::abort, Unlocked(), py::arg("operation"), py::arg("reason"));
  py::class_<run::Executable>(m, "Executable")
      .def(py::init([](const PlanHandle& plan, const comm::Communicator& communicator, const std::string& device) {
             return run::Executable(plan.plan, communicator, at::Device(device), throw_to_python);
           }),
           Unlocked(), py::arg("plan"), py::arg("communicator"), py::arg("device"))
      .def_property_readonly("handle", &run::Executable::handle)
      .def_property_readonly("rank", [](const run::Executable& e) { return e.rank().value; })
      .def_property_readonly("num_tokens", &run::Executable::num_tokens);
  m.def("attention", &run::attention, Unlocked(), py::arg("query"), py::arg("key"), py::arg("value"),
        py::arg("executable"));
}

#ifdef EVENSPAN_WITH_CALIBRATE
// Modelled seconds of one layer's attention, forward and backward, each begun by all ranks together.
std::tuple<double, double> predict(const calibrate::Calibration& self, const PlanHandle& plan) {
  simulate::Scenario scenario;
  scenario.profile = self.profile;
  scenario.machine = simulate::make_machine(scenario.profile, plan.plan->request.num_ranks(), 0);
  scenario.model.shape = plan.plan->request.shape;
  const simulate::Prediction prediction = simulate::predict(*plan.plan, scenario);
  return {prediction.forward.makespan_seconds, prediction.backward.makespan_seconds};
}

void bind_calibrate(py::module_& m) {
  py::class_<calibrate::Command>(m, "CalibrateCommand")
      .def(py::init(&calibrate::parse_command), py::arg("words"))
      .def_readonly("help", &calibrate::Command::help)
      .def_readonly("ranks", &calibrate::Command::ranks)
      .def_property_readonly("device", [](const calibrate::Command& c) { return c.options.device; })
      .def_property(
          "ranks_per_node", [](const calibrate::Command& c) { return c.options.ranks_per_node; },
          [](calibrate::Command& c, int32_t ranks) { c.options.ranks_per_node = ranks; })
      .def_static("describe_options", &calibrate::describe_options)
      .def("run", &calibrate::run_command, Unlocked(), py::arg("communicator"))
      .def(
          "calibrate",
          [](const calibrate::Command& c, const comm::Communicator& communicator) {
            return calibrate::calibrate(c.options, communicator);
          },
          Unlocked(), py::arg("communicator"));
  py::class_<calibrate::Calibration>(m, "Calibration")
      .def_property_readonly("json", &calibrate::to_json)
      .def("predict", predict, Unlocked(), py::arg("plan"));
}
#endif

#ifdef EVENSPAN_WITH_TRAIN
train::Summary run_trainer(const std::string& path, const train::Overrides& overrides,
                           const comm::Communicator& communicator) {
  // As in evenspan-train: activations are freed and allocated again all the time, so keep their pages.
  ::mallopt(M_MMAP_THRESHOLD, 1 << 30);
  ::mallopt(M_TRIM_THRESHOLD, 1 << 30);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const train::Config config = train::load_config(path, overrides);
  const train::StopSignals signals(/*speaks=*/communicator.rank() == 0);
  return train::train(config, communicator, signals.stop());
}

// The words for `python -m evenspan` that make the tokens of the run; none where it needs no more.
std::vector<std::string> tokenization_words(const std::string& path, const train::Overrides& overrides, int32_t ranks) {
  const train::Config config = train::load_config(path, overrides);
  train::check(config, ranks);
  const std::optional<train::Tokenization> tokenization = train::tokenization(config);
  return tokenization ? tokenization->words : std::vector<std::string>();
}

void bind_train(py::module_& m) {
  py::class_<train::Summary>(m, "Summary")
      .def_readonly("steps", &train::Summary::steps)
      .def_readonly("first_loss", &train::Summary::first_loss)
      .def_readonly("last_loss", &train::Summary::last_loss)
      .def_readonly("held_out_loss", &train::Summary::held_out_loss)
      .def_readonly("tokens", &train::Summary::tokens)
      .def_readonly("seconds", &train::Summary::seconds)
      .def_readonly("stopped_by", &train::Summary::stopped_by)
      .def_readonly("checkpoint", &train::Summary::checkpoint);
  m.def("train", run_trainer, Unlocked(), py::arg("config"), py::arg("overrides"), py::arg("communicator"));
  m.def("tokenization_words", tokenization_words, py::arg("config"), py::arg("overrides"), py::arg("ranks"));
  m.def("describe_training", &train::describe_training);
}
#endif

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  py::register_exception_translator(translate);
  m.attr("VERSION") = EVENSPAN_VERSION;
  py::class_<Progress>(m, "Progress")
      .def(py::init([](const std::string& what) { return std::make_unique<Progress>(what); }), py::arg("what"))
      .def("at", &Progress::at, py::arg("done"), py::arg("total"));
  bind_plan(m);
  bind_run(m);
  bind_linear(m);
#ifdef EVENSPAN_WITH_CALIBRATE
  bind_calibrate(m);
#endif
#ifdef EVENSPAN_WITH_TRAIN
  bind_train(m);
#endif
}

}  // namespace evenspan::python
