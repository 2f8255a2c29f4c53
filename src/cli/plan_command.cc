// evenspan plan: who holds which tokens, who computes which tiles, who sends what to whom.
#include <chrono>
#include <iostream>

#include "cli/command.h"
#include "cli/files.h"
#include "cli/findings.h"
#include "cli/plan_json.h"
#include "cli/plan_page.h"
#include "cli/plan_table.h"
#include "cli/request_options.h"
#include "evenspan/core/error.h"
#include "evenspan/plan/text.h"
#include "evenspan/plan/verify.h"
#include "plan/strategy/strategy.h"

namespace evenspan::cli {
namespace {

constexpr const char* kSummary =
    "Plans a batch of packed documents over ranks and prints tokens, work and sent bytes of every rank.";

constexpr const char* kExamples = R"(Examples:
  seq 100 100 2000 | evenspan plan --lengths - --ranks 4
  evenspan plan --lengths lengths.txt.gz --ranks 64 --ranks-per-node 8 --strategy hierarchical --json plan.json
  evenspan plan --lengths lengths.txt --ranks 8 --mask window:4096 --text plan.txt --verify

Work is modelled with the constants of a 7B model (FlexSP). The defaults of heads and head dimension are those of
Llama 3 8B. Sent bytes are the payload of one layer's forward. Files are written whole or not at all.
Exit code: 0 planned, 1 --verify refused the plan, 2 bad arguments or input.)";

struct PlanArguments {
  RequestArguments request;
  std::string json, text, html;
  bool verify = false;
};

void declare(Options* options, PlanArguments* arguments) {
  declare_batch(options, &arguments->request);
  options->integer("--ranks-per-node", "Ranks of a node, the last may have fewer; 0: all ranks are on one node",
                   &arguments->request.ranks_per_node);
  options->text("--strategy", "NAME", "One of " + strategy_names() + "; evenspan strategies describes them",
                &arguments->request.knobs.strategy);
  declare_attention(options, &arguments->request);
  declare_knobs(options, &arguments->request);
  options->text("--json", "OUT", "Write the plan as JSON; - is standard output", &arguments->json);
  options->text("--text", "OUT", "Write the programs of all ranks as text; - is standard output", &arguments->text);
  options->text("--html", "OUT", "Write a page with pictures: placement, tokens, work, bytes; - is standard output",
                &arguments->html);
  options->flag("--verify", "Prove the plan before a file is written", &arguments->verify);
}

}  // namespace

int plan_command(const Arguments& words) {
  PlanArguments arguments;
  Options options("evenspan plan", kSummary, kExamples, {"--lengths", "--ranks"});
  declare(&options, &arguments);
  if (!options.parse(words)) return kDone;
  refuse_same_output({{"--json", arguments.json}, {"--text", arguments.text}, {"--html", arguments.html}});
  const RequestArguments& wanted = arguments.request;
  plan::find_strategy(wanted.knobs.strategy);  // before the lengths, which may come from a terminal
  check_idle_knobs(options, {wanted.knobs.strategy}, "evenspan plan");
  const plan::Mask mask = plan::parse_mask(wanted.mask);
  plan::Request request = read_request(wanted, mask);
  request.topology = plan::make_topology(wanted.ranks, wanted.ranks_per_node);

  // What a rank spends: the plan, and its own program.
  const auto start = std::chrono::steady_clock::now();
  const auto plan = plan::make_plan(request);
  plan::lower(*plan, Rank(0));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

  const plan::Metrics metrics = plan::measure(*plan);
  const std::string table = plan_table(*plan, metrics, mask, seconds);
  const bool to_stdout = arguments.json == "-" || arguments.text == "-" || arguments.html == "-";
  (to_stdout ? std::cerr : std::cout) << table;
  std::vector<std::pair<std::string, std::string>> outputs;
  if (!arguments.json.empty()) outputs.emplace_back(arguments.json, plan_json(*plan, metrics, mask, seconds));
  if (!arguments.html.empty()) {
    outputs.emplace_back(arguments.html, plan_page({"A plan", table.substr(0, table.find('\n')), {}, ""},
                                                   {{request.options.strategy, plan, {}}}));
  }
  if (arguments.verify || !arguments.text.empty()) {
    const plan::LoweredPlan lowered = plan::lower_all(*plan);
    if (arguments.verify && !report(lowered, plan::verify(lowered), "the plan", nullptr, to_stdout)) return kRefused;
    if (!arguments.text.empty()) outputs.emplace_back(arguments.text, plan::print(lowered));
  }
  write_outputs(outputs);
  return kDone;
}

}  // namespace evenspan::cli
