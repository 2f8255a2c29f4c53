// Profiles, topologies and models: what is taken is simulated.
#include "evenspan/core/error.h"
#include "evenspan/machine/machine_files.h"
#include "evenspan/nn/model_config.h"
#include "evenspan/simulate/bound.h"
#include "evenspan/simulate/planner.h"
#include "evenspan/simulate/prediction.h"
#include "fuzz/kinds.h"

namespace evenspan::fuzz {
namespace {

constexpr int32_t kMostRanks = 16;

// Plans a small batch and predicts its step, by two strategies.
void simulate(simulate::Scenario scenario) {
  if (scenario.machine.topology.num_ranks > kMostRanks || scenario.model.num_layers > 200) return;
  plan::Request request;
  request.documents = plan::Documents({700, 300, 128, 9}, plan::Mask{});
  request.shape = scenario.model.shape;
  request.topology = scenario.machine.topology;
  request.cost = simulate::cost_model(scenario.profile, scenario.model);
  for (const char* strategy : {"mixed", "usp"}) {
    request.options.strategy = strategy;
    const auto plan = plan::make_plan(request);
    const double seconds = simulate::predict(*plan, scenario).step_seconds;
    const double bound = simulate::step_lower_bound(request, scenario);
    if (!(seconds >= 0 && seconds <= 1e300 && bound >= 0 && bound <= 1e300)) {
      throw InternalError(join_text("a step takes ", seconds, " s, at least ", bound, " s"));
    }
  }
}

simulate::Model small_model(const plan::AttentionShape& shape) {
  simulate::Model model;
  model.shape = shape;
  model.num_layers = 2;
  model.hidden = 64;
  model.intermediate = 128;
  model.vocabulary = 256;
  return model;
}

const std::vector<std::string_view> kJsonWords = {"{",
                                                  "}",
                                                  "[",
                                                  "]",
                                                  "\"a\": ",
                                                  ",",
                                                  "null",
                                                  "true",
                                                  "false",
                                                  "\"\"",
                                                  "[[[[",
                                                  "{\"a\":",
                                                  "\\u0000",
                                                  "\xff",
                                                  "1e5",
                                                  "\"cards\": 3, ",
                                                  "\"levels\": [], "};

}  // namespace

Kind profile() {
  return {"profile", kJsonWords, [](const std::string& bytes, const std::string&) {
            const simulate::Profile profile = machine::read_profile("-", [&](const std::string&) { return bytes; });
            const simulate::AttentionTimes& times = profile.attention.front();
            if (times.head_dim > 1024) return;
            simulate::Machine machine = simulate::make_machine(profile, 4, profile.links.size() > 1 ? 2 : 4);
            simulate({std::move(machine), profile, small_model({4, 2, times.head_dim, times.elements.front()})});
          }};
}

Kind topology() {
  return {"topology", kJsonWords, [](const std::string& bytes, const std::string&) {
            const simulate::Profile profile = machine::read_profile("h100-sxm");
            simulate::Machine machine = machine::parse_topology(bytes, "topology.json", profile);
            simulate({std::move(machine), profile, small_model({4, 2, 128, plan::ElementType::bf16})});
          }};
}

// A config.json is read by the simulator and by the trainer.
Kind model() {
  return {"model", kJsonWords, [](const std::string& bytes, const std::string&) {
            try {
              const nn::ModelConfig config = nn::parse_model_config(bytes, "config.json");
              if (!(nn::parse_model_config(nn::to_json(config, "float32"), "again") == config)) {
                throw InternalError("the model is written to another model");
              }
            } catch (const Error&) {
            }
            const simulate::Profile profile = machine::read_profile("h100-sxm");
            const simulate::Model model = machine::parse_model(bytes, "config.json").model;
            simulate(simulate::scenario_of_run(profile, model, simulate::make_machine(profile, 4, 4)));
          }};
}

}  // namespace evenspan::fuzz
