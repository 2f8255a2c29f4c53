#include "cli/simulate_output.h"

#include <nlohmann/json.hpp>

#include <algorithm>

#include "cli/table.h"
#include "evenspan/core/error.h"
#include "evenspan/core/grouped.h"

namespace evenspan::cli {
namespace {

using Json = nlohmann::ordered_json;
using simulate::Prediction;

std::string milliseconds(double seconds) { return fixed(1e3 * seconds, 3); }
std::string megabytes(int64_t bytes) { return fixed(1e-6 * static_cast<double>(bytes), 1); }

Json pass_json(const simulate::PassPrediction& pass) {
  Json ranks = Json::array();
  for (const simulate::RankUse& use : pass.ranks) {
    ranks.push_back({{"finish_seconds", use.finish_seconds},
                     {"compute_seconds", use.compute_seconds},
                     {"transfer_seconds", use.transfer_seconds},
                     {"idle_seconds", pass.makespan_seconds - use.compute_seconds}});
  }
  return {{"makespan_seconds", pass.makespan_seconds},
          {"sent_bytes_by_level", pass.sent_bytes_by_level},
          {"ranks", std::move(ranks)}};
}

std::string name_of(const std::string& strategy, int32_t ranks_per_group) {
  return ranks_per_group > 0 ? join_text(strategy, " with ", ranks_per_group, " ranks a group") : strategy;
}

// What `auto` chose, and beside what.
std::string choice_text(const simulate::Choice& choice) {
  std::string beaten, bounded;
  const auto add = [](std::string* list, const std::string& item) { *list += (list->empty() ? "" : ", ") + item; };
  for (const simulate::Candidate& c : choice.candidates) {
    const std::string item = join_text(name_of(c.strategy, c.ranks_per_group), " ", milliseconds(c.step_seconds));
    add(c.simulated ? &beaten : &bounded, item);
  }
  const std::string text = join_text("auto is ", name_of(choice.options.strategy, choice.options.ranks_per_group),
                                     ". Simulated, step ms: ", beaten,
                                     bounded.empty() ? "." : ". Not simulated, since at least: " + bounded + ".");
  return "\n" + wrapped(text, 120) + "\n";
}

Json choice_json(const simulate::Choice& choice) {
  Json candidates = Json::array();
  for (const simulate::Candidate& c : choice.candidates) {
    candidates.push_back({{"strategy", c.strategy},
                          {"ranks_per_group", c.ranks_per_group},
                          {"simulated", c.simulated},
                          {"step_seconds", c.step_seconds}});
  }
  return {{"strategy", choice.options.strategy},
          {"ranks_per_group", choice.options.ranks_per_group},
          {"candidates", std::move(candidates)}};
}

// Trace events, a line each.
class Trace {
 public:
  void name(const char* what, int64_t process, int thread, const std::string& name) {
    add({{"name", what}, {"ph", "M"}, {"pid", process}, {"tid", thread}, {"args", {{"name", name}}}});
  }

  void pass(const simulate::PassPrediction& pass, int64_t first_process, double offset_seconds) {
    for (const simulate::Interval& interval : pass.timeline) {
      const int64_t process = first_process + interval.rank.value;
      const bool computes = interval.engine == simulate::Engine::compute;
      Json arguments = {{"step", interval.step}};
      if (!computes) arguments["sent_bytes"] = interval.sent_bytes;
      add({{"name", interval.name},
           {"ph", "X"},
           {"pid", process},
           {"tid", computes ? 0 : 1},
           {"ts", microseconds(offset_seconds + interval.begin_seconds)},
           {"dur", microseconds(interval.end_seconds - interval.begin_seconds)},
           {"args", std::move(arguments)}});
      if (!computes) continue;
      add({{"name", "arena"},
           {"ph", "C"},
           {"pid", process},
           {"ts", microseconds(offset_seconds + interval.begin_seconds)},
           {"args", {{"live bytes", interval.live_bytes}}}});
    }
  }

  std::string take() { return text_ + "\n]}\n"; }

 private:
  // Times to the picosecond.
  static double microseconds(double seconds) {
    return static_cast<double>(static_cast<int64_t>(seconds * 1e12 + 0.5)) / 1e6;
  }
  void add(const Json& event) { text_ += (text_.ends_with("[") ? "\n" : ",\n") + event.dump(); }

  std::string text_ = "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [";
};

}  // namespace

std::vector<std::vector<std::string>> simulation_rows(const simulate::Scenario& scenario,
                                                      const std::vector<Prediction>& predictions) {
  std::vector<std::vector<std::string>> rows = {
      {"strategy", "step ms", "forward ms", "backward ms", "idle %", "work", "tokens"}};
  for (const plan::Level& level : scenario.machine.topology.levels) {
    rows[0].push_back(join_text("MB in ", level.group_size));
  }
  rows[0].emplace_back("arena MB");
  rows[0].emplace_back("from");
  for (const Prediction& p : predictions) {
    rows.push_back({p.strategy, milliseconds(p.step_seconds), milliseconds(p.forward.makespan_seconds),
                    milliseconds(p.backward.makespan_seconds), fixed(100 * p.idle_fraction, 1),
                    fixed(p.work_max_over_mean, 3), fixed(p.tokens_max_over_mean, 3)});
    for (const int64_t bytes : p.forward.sent_bytes_by_level) rows.back().push_back(megabytes(bytes));
    rows.back().push_back(p.by_formula ? "-" : megabytes(p.peak_arena_bytes));
    rows.back().emplace_back(p.by_formula ? "formula" : "programs");
  }
  return rows;
}

// ", 6 of them linear", or nothing.
std::string linear_layers(const simulate::Model& model) {
  const int32_t linear = model.num_layers - model.num_softmax_layers();
  return linear > 0 ? join_text(", ", linear, " of them linear (", model.states.transport, "), the others") : "";
}

// ", 52 of them with a window of 1,024 keys", or nothing.
std::string windows_of(const simulate::Model& model) {
  std::string text;
  for (const auto& [count, window] : model.windows) {
    text += join_text(", ", count, " of them with a window of ", grouped(window), " keys");
  }
  return text;
}

std::string model_words(const simulate::Model& model) {
  return join_text(model.num_layers, " layers", linear_layers(model), windows_of(model),
                   model.windows.empty() ? "" : ",", " of ", model.shape.num_heads, " heads, ",
                   model.shape.num_kv_heads, " kv heads of ", model.shape.head_dim, ", ",
                   to_string(model.shape.element));
}

std::string simulation_heading(const simulate::Scenario& scenario, const SimulationTitle& title) {
  const plan::Topology& topology = scenario.machine.topology;
  return join_text(scenario.profile.name, ": ", counted(title.num_documents, "document"), ", ",
                   counted(title.num_tokens, "token"), " on ", counted(topology.num_ranks, "rank"), " (",
                   topology.ranks_per_node(), " a node), ", model_words(scenario.model), ", ", title.mask);
}

std::string simulation_table(const simulate::Scenario& scenario, const SimulationTitle& title,
                             const std::vector<Prediction>& predictions, const simulate::Choice* choice) {
  return join_text(
      simulation_heading(scenario, title), "\n\n", aligned(simulation_rows(scenario, predictions)),
      "\nstep: the whole model, forward and backward; idle: its share in which ranks do not compute. forward, "
      "backward:\n"
      "one layer's attention. work, tokens: max / mean. MB in N: sent in one layer's forward between ranks whose\n"
      "smallest common group has N ranks. arena: most temporary memory of a rank. MB are 10^6 bytes.\n",
      "No plan's step is below ", milliseconds(title.lower_bound_seconds),
      " ms: all work divided evenly, at the best rate.\n", choice != nullptr ? choice_text(*choice) : "");
}

std::string simulation_json(const simulate::Scenario& scenario, const SimulationTitle& title,
                            const std::vector<Prediction>& predictions, const simulate::Choice* choice) {
  const simulate::Model& model = scenario.model;
  Json levels = Json::array();
  for (size_t l = 0; l < scenario.machine.links.size(); ++l) {
    const simulate::Link& link = scenario.machine.links[l];
    levels.push_back({{"group_size", scenario.machine.topology.levels[l].group_size},
                      {"latency_seconds", link.latency_seconds},
                      {"bytes_per_second", link.bytes_per_second},
                      {"cards", link.cards},
                      {"card_bytes_per_second", link.card_bytes_per_second}});
  }
  Json strategies = Json::array();
  for (const Prediction& p : predictions) {
    strategies.push_back({{"strategy", p.strategy},
                          {"from", p.by_formula ? "formula" : "programs"},
                          {"step_seconds", p.step_seconds},
                          {"idle_fraction", p.idle_fraction},
                          {"work_max_over_mean", p.work_max_over_mean},
                          {"tokens_max_over_mean", p.tokens_max_over_mean},
                          {"peak_arena_bytes", p.peak_arena_bytes},
                          {"peak_saved_bytes", p.peak_saved_bytes},
                          {"forward", pass_json(p.forward)},
                          {"backward", pass_json(p.backward)}});
    for (const simulate::LayerPrediction& kind : p.windows) {
      strategies.back()["windows"].push_back(
          {{"layers", kind.num_layers}, {"forward", pass_json(kind.forward)}, {"backward", pass_json(kind.backward)}});
    }
    for (const simulate::LayerPrediction& kind : p.linear) {
      strategies.back()["linear"].push_back(
          {{"layers", kind.num_layers}, {"forward", pass_json(kind.forward)}, {"backward", pass_json(kind.backward)}});
    }
  }
  Json windows = Json::array();
  for (const auto& [count, window] : model.windows) windows.push_back({{"layers", count}, {"window", window}});
  Json json = {{"profile", scenario.profile.name},
               {"documents", title.num_documents},
               {"tokens", title.num_tokens},
               {"mask", title.mask},
               {"ranks", scenario.machine.topology.num_ranks},
               {"ranks_per_node", scenario.machine.topology.ranks_per_node()},
               {"levels", std::move(levels)},
               {"layers", model.num_layers},
               {"linear_layers", model.num_layers - model.num_softmax_layers()},
               {"window_layers", std::move(windows)},
               {"heads", model.shape.num_heads},
               {"kv_heads", model.shape.num_kv_heads},
               {"head_dim", model.shape.head_dim},
               {"dtype", to_string(model.shape.element)},
               {"hidden", model.hidden},
               {"intermediate", model.intermediate},
               {"vocabulary", model.vocabulary},
               {"layer_weights", model.layer_weights()},
               {"active_layer_weights", model.active_layer_weights()},
               {"lower_bound_seconds", title.lower_bound_seconds},
               {"strategies", std::move(strategies)}};
  if (choice != nullptr) json["auto"] = choice_json(*choice);
  return json.dump(2) + "\n";
}

std::string simulation_trace(const std::vector<Prediction>& predictions) {
  Trace trace;
  int64_t first_process = 0;
  for (const Prediction& prediction : predictions) {
    const auto num_ranks = static_cast<int64_t>(prediction.forward.ranks.size());
    for (int64_t r = 0; r < num_ranks; ++r) {
      trace.name("process_name", first_process + r, 0, join_text(prediction.strategy, " rank ", r));
      trace.name("thread_name", first_process + r, 0, "compute");
      trace.name("thread_name", first_process + r, 1, "communication");
    }
    trace.pass(prediction.forward, first_process, 0);
    trace.pass(prediction.backward, first_process, prediction.forward.makespan_seconds);
    first_process += num_ranks;
  }
  return trace.take();
}

}  // namespace evenspan::cli
