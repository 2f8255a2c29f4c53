// evenspan plan: who holds which tokens, who computes which tiles, who sends what to whom.
#include <chrono>
#include <iostream>

#include "cli/command.h"
#include "cli/files.h"
#include "cli/findings.h"
#include "cli/options.h"
#include "cli/plan_json.h"
#include "cli/plan_table.h"
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
  std::string lengths, dtype = "bf16", mask = "causal", json, text;
  int32_t ranks = 0;
  int32_t ranks_per_node = 0;
  plan::AttentionShape shape{32, 8, 128, plan::ElementType::bf16};
  plan::Options options;
  bool verify = false;
};

void declare(Options* options, PlanArguments* arguments) {
  std::string names;
  for (const plan::Strategy& strategy : plan::strategies()) {
    names += (names.empty() ? "" : ", ") + std::string(strategy.name);
  }
  plan::Options* knobs = &arguments->options;
  options->text("--lengths", "FILE", "Document lengths, one a line; .gz too; - is standard input", &arguments->lengths);
  options->integer("--ranks", "Ranks to plan for", &arguments->ranks);
  options->integer("--ranks-per-node", "Ranks of a node, the last may have fewer; 0: all ranks are on one node",
                   &arguments->ranks_per_node);
  options->text("--strategy", "NAME", "One of " + names + "; evenspan strategies describes them", &knobs->strategy);
  options->integer("--heads", "Query heads", &arguments->shape.num_heads);
  options->integer("--kv-heads", "Key and value heads; they divide the query heads", &arguments->shape.num_kv_heads);
  options->integer("--head-dim", "Numbers in a head", &arguments->shape.head_dim);
  options->text("--dtype", "TYPE", "bf16, f16, f32 or f64", &arguments->dtype);
  options->text(
      "--mask", "MASK",
      "causal, full, window:W (causal, a query sees W keys) or prefix:P (causal, and all see the first P keys)",
      &arguments->mask);
  options->number("--token-slack", "Planned placements keep tokens max/mean at most 1 + X where possible",
                  &knobs->token_slack);
  options->integer(
      "--ranks-per-group",
      "hierarchical and usp: ranks that split heads; 0: the largest divisor of the ranks that fits in a node",
      &knobs->ranks_per_group);
  options->integer("--stripe-tokens", "striped: tokens of a stripe", &knobs->stripe_tokens);
  options->bytes("--memory-budget",
                 "Most temporary and saved memory of a rank for one layer, such as 512MiB; 0: no limit",
                 &knobs->memory_budget_bytes);
  options->text("--json", "OUT", "Write the plan as JSON; - is standard output", &arguments->json);
  options->text("--text", "OUT", "Write the programs of all ranks as text; - is standard output", &arguments->text);
  options->flag("--verify", "Prove the plan before a file is written", &arguments->verify);
}

// An option that changes nothing is a mistake of the user. Only --token-slack may stand in scripts that try every
// strategy: a note says that it is idle.
void check_idle_knobs(const Options& options, const std::string& strategy) {
  const bool planned = strategy == "sequence_aware" || strategy == "hierarchical";
  const auto refuse = [&](const char* name, bool used) {
    if (!options.given(name) || used) return;
    fail_invalid("[options] ", name, " has no effect with the strategy ", strategy, "; leave it out");
  };
  refuse("--ranks-per-group", strategy == "hierarchical" || strategy == "usp");
  refuse("--stripe-tokens", strategy == "striped");
  if (options.given("--token-slack") && !planned) {
    std::cerr << "evenspan plan: note: --token-slack has no effect with the strategy " << strategy << "\n";
  }
}

plan::Request make_request(const PlanArguments& arguments, const plan::Mask& mask) {
  const std::string name = arguments.lengths == "-" ? "standard input" : arguments.lengths;
  plan::Request request;
  request.documents = plan::Documents(parse_lengths(read_input(arguments.lengths), name), mask);
  request.shape = arguments.shape;
  request.shape.element = plan::parse_element_type(arguments.dtype);
  request.topology = plan::make_topology(arguments.ranks, arguments.ranks_per_node);
  request.options = arguments.options;
  return request;
}

}  // namespace

int plan_command(const Arguments& words) {
  PlanArguments arguments;
  Options options("evenspan plan", kSummary, kExamples, {"--lengths", "--ranks"});
  declare(&options, &arguments);
  if (!options.parse(words)) return kDone;
  if (!arguments.json.empty() && arguments.json == arguments.text) {
    fail_invalid("[options] --json and --text both go to \"", arguments.json, "\"; give them different files");
  }
  plan::find_strategy(arguments.options.strategy);  // before the lengths, which may come from a terminal
  check_idle_knobs(options, arguments.options.strategy);
  const plan::Mask mask = plan::parse_mask(arguments.mask);
  const plan::Request request = make_request(arguments, mask);

  // What a rank spends: the plan, and its own program.
  const auto start = std::chrono::steady_clock::now();
  const auto plan = plan::make_plan(request);
  plan::lower(*plan, Rank(0));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

  const plan::Metrics metrics = plan::measure(*plan);
  const bool to_stdout = arguments.json == "-" || arguments.text == "-";
  (to_stdout ? std::cerr : std::cout) << plan_table(*plan, metrics, mask, seconds);
  std::vector<std::pair<std::string, std::string>> outputs;
  if (!arguments.json.empty()) outputs.emplace_back(arguments.json, plan_json(*plan, metrics, mask, seconds));
  if (arguments.verify || !arguments.text.empty()) {
    const plan::LoweredPlan lowered = plan::lower_all(*plan);
    if (arguments.verify && !report(lowered, plan::verify(lowered), "the plan", nullptr, to_stdout)) return kRefused;
    if (!arguments.text.empty()) outputs.emplace_back(arguments.text, plan::print(lowered));
  }
  write_outputs(outputs);
  return kDone;
}

}  // namespace evenspan::cli
