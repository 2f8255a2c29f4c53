// evenspan plan: who holds which tokens, who computes which tiles, who sends what to whom.
#include <chrono>
#include <iostream>
#include <optional>

#include "cli/command_table.h"
#include "cli/findings.h"
#include "cli/input.h"
#include "cli/plan_json.h"
#include "cli/plan_page.h"
#include "cli/plan_table.h"
#include "cli/scenario_options.h"
#include "cli/watch.h"
#include "evenspan/core/error.h"
#include "evenspan/machine/machine_files.h"
#include "evenspan/plan/text.h"
#include "evenspan/plan/verify.h"
#include "evenspan/simulate/planner.h"
#include "plan/strategy/strategy.h"

namespace evenspan::cli {
namespace {

constexpr const char* kPlanSummary =
    "Plans a batch of packed documents over ranks and prints tokens, work and sent bytes of every rank.";

constexpr const char* kPlanExamples = R"(Examples:
  seq 100 100 2000 | evenspan plan --lengths - --ranks 4
  evenspan plan --lengths lengths.txt.gz --ranks 64 --ranks-per-node 8 --strategy hierarchical --json plan.json
  evenspan plan --lengths lengths.txt --ranks 16 --ranks-per-node 8 --strategy auto --profile a100-40gb-ib
  evenspan plan --lengths lengths.txt --topology cluster.json --strategy auto --profile mine.json
  evenspan plan --lengths lengths.txt --ranks 8 --mask window:4096 --text plan.txt --verify

Work is modelled with the constants of a 7B model (FlexSP), or from the profile that is given. The strategy auto takes
the plan whose step is simulated shortest on the profile's machine, for a model with the sizes of Llama 3 8B, whose
heads and head dimension are the defaults. Sent bytes are the payload of one layer's forward. Files are written whole or
not at all.
Exit code: 0 planned, 1 --verify refused the plan, 2 bad arguments or input.)";

struct PlanArguments {
  RequestArguments request;
  ScenarioArguments scenario;
  std::string json, text, html;
  bool verify = false;
};

void declare(Options* options, PlanArguments* arguments) {
  declare_batch(options, &arguments->request);
  options->integer("--ranks-per-node", "Ranks of a node, the last may have fewer; 0: all ranks are on one node",
                   &arguments->request.ranks_per_node);
  declare_topology(options, &arguments->scenario.topology);
  options->text("--strategy", "NAME",
                "One of " + strategy_names() +
                    ", auto; evenspan strategies describes them; auto takes the one with the shortest step simulated",
                &arguments->request.knobs.strategy);
  options->text("--profile", "NAME|FILE",
                "A shipped profile (" + profile_names() +
                    ") or one as JSON, by which work and the modelled seconds of auto and --json are; where none is "
                    "given, work is that of FlexSP's 7B model, and auto and --json take " +
                    machine::kDefaultProfile,
                &arguments->scenario.profile, Default::hidden);
  declare_attention(options, &arguments->request);
  declare_knobs(options, &arguments->request);
  options->text("--json", "OUT", "Write the plan as JSON; - is standard output", &arguments->json);
  options->text("--text", "OUT", "Write the programs of all ranks as text; - is standard output", &arguments->text);
  options->text("--html", "OUT", "Write a page with pictures: placement, tokens, work, bytes; - is standard output",
                &arguments->html);
  options->flag("--verify", "Prove the plan before a file is written", &arguments->verify);
  declare_quiet(options, &arguments->request);
}

// What --topology describes.
using Described = std::optional<simulate::Machine>;

simulate::Scenario make_scenario(const simulate::Profile& profile, const Described& described,
                                 const plan::Request& request) {
  simulate::Model model;
  model.shape = request.shape;
  return simulate::scenario_of_run(
      profile, model,
      described ? *described : simulate::make_machine(profile, request.num_ranks(), request.topology.ranks_per_node()));
}

// Of a plan without --profile too, if the default profile was measured for its shape; else `note` says that it was not.
PlanForecast forecast_of(const simulate::Profile& profile, const Described& described,
                         std::optional<simulate::Scenario> scenario, const plan::Plan& plan, const WorkPart& work,
                         std::string* note) {
  if (!scenario) {
    try {
      scenario = make_scenario(profile, described, plan.request);
    } catch (const Error& error) {
      *note = join_text("no modelled seconds: ", error.what());
    }
  }
  return forecast(plan, scenario ? &*scenario : nullptr, work);
}

void say(const std::string& note) {
  if (!note.empty()) std::cerr << "evenspan plan: note: " << note << "\n";
}

Options declared(PlanArguments* arguments) {
  Options options("evenspan plan", kPlanSummary, kPlanExamples, {"--lengths"});
  declare(&options, arguments);
  return options;
}

}  // namespace

OptionList plan_options() {
  PlanArguments arguments;
  return declared(&arguments).list();
}

int plan_command(const Arguments& words) {
  PlanArguments arguments;
  Options options = declared(&arguments);
  if (!options.parse(words)) return kDone;
  const RequestArguments& wanted = arguments.request;
  const bool is_auto = wanted.knobs.strategy == simulate::kAuto, has_profile = options.given("--profile");
  if (!is_auto) plan::find_strategy(wanted.knobs.strategy);
  check_topology(options, "evenspan plan");
  check_idle_knobs(options, {wanted.knobs.strategy}, "evenspan plan");
  check_files(wanted, arguments.scenario,
              {{"--json", arguments.json}, {"--text", arguments.text}, {"--html", arguments.html}});
  const plan::Mask mask = plan::parse_mask(wanted.mask);
  const simulate::Profile profile = machine::read_profile(arguments.scenario.profile, read_input);
  Described described;
  if (options.given("--topology")) {
    const std::string& file = arguments.scenario.topology;
    described = machine::parse_topology(read_input(file), file, profile);
  }
  const plan::Request request =
      read_request(wanted, described ? described->topology : plan::make_topology(wanted.ranks, wanted.ranks_per_node),
                   plan::CostModel());
  std::optional<simulate::Scenario> scenario;
  if (is_auto && !has_profile) say(machine::note_of_default_profile("auto chooses"));
  if (has_profile || is_auto) scenario = make_scenario(profile, described, request);

  Watch watch("evenspan plan", wanted.quiet);
  const bool lowers = arguments.verify || !arguments.text.empty();
  const int num_parts = 1 + (arguments.json.empty() ? 0 : 1) + (arguments.verify ? 1 : 0) + (lowers ? 1 : 0);
  auto next = [work = watch.work(), part = 0, num_parts]() mutable { return work.part(part++, num_parts); };
  // What a rank spends: the plan, and its own program.
  const auto start = std::chrono::steady_clock::now();
  const simulate::RunnablePlan planned = simulate::plan_to_run(request, scenario ? &*scenario : nullptr, next());
  const auto& plan = planned.plan;
  plan::lower(*plan, Rank(0));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

  const plan::Metrics metrics = plan::measure(*plan);
  const std::string table = plan_table(*plan, metrics, mask, seconds);
  std::string note;
  std::vector<std::pair<std::string, std::string>> outputs;
  if (!arguments.json.empty()) {
    const PlanForecast forecast = forecast_of(profile, described, scenario, *plan, next(), &note);
    outputs.emplace_back(arguments.json, plan_json(*plan, metrics, forecast, mask, seconds));
  }
  if (!arguments.html.empty()) {
    outputs.emplace_back(arguments.html, plan_page({"A plan", table.substr(0, table.find('\n')), {}, ""},
                                                   {{plan->request.options.strategy, plan, {}}}));
  }
  plan::LoweredPlan lowered;
  std::vector<plan::Finding> findings;
  if (lowers) {
    next();
    lowered = plan::lower_all(*plan);
    if (arguments.verify) findings = plan::verify(lowered, next());
    if (!arguments.text.empty() && findings.empty()) outputs.emplace_back(arguments.text, plan::print(lowered));
  }
  watch.stop();
  const bool to_stdout = arguments.json == "-" || arguments.text == "-" || arguments.html == "-";
  (to_stdout ? std::cerr : std::cout) << table;
  say(planned.note);
  say(note);
  if (arguments.verify && !report(lowered, findings, "the plan", nullptr, to_stdout)) return kRefused;
  write_outputs(outputs);
  return kDone;
}

}  // namespace evenspan::cli
