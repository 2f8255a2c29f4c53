#include "cli/request_options.h"

#include <algorithm>
#include <iostream>

#include "cli/input.h"
#include "evenspan/core/error.h"
#include "evenspan/simulate/planner.h"
#include "plan/strategy/strategy.h"

namespace evenspan::cli {

void declare_batch(Options* options, RequestArguments* arguments) {
  options->text("--lengths", "FILE", "Document lengths, one a line; .gz too; - is standard input", &arguments->lengths);
  options->integer("--ranks", "Ranks to plan for", &arguments->ranks, Default::hidden);
}

void declare_dtype(Options* options, RequestArguments* arguments) {
  options->text("--dtype", "TYPE",
                "bf16, f16, f32 or f64, or as torch writes them: bfloat16, float16, float32, float64",
                &arguments->dtype);
}

void declare_attention(Options* options, RequestArguments* arguments) {
  options->integer("--heads", "Query heads", &arguments->shape.num_heads);
  options->integer("--kv-heads", "Key and value heads; they divide the query heads", &arguments->shape.num_kv_heads);
  options->integer("--head-dim", "Numbers in a head", &arguments->shape.head_dim);
  declare_dtype(options, arguments);
  options->text(
      "--mask", "MASK",
      "causal, full, window:W (causal, a query sees W keys) or prefix:P (causal, and all see the first P keys)",
      &arguments->mask);
}

namespace {

// Of the strategies that take an option: "mixed, hierarchical and usp", the best first.
std::string names_of(bool plan::Traits::*takes) {
  std::vector<std::string> names;
  for (const plan::Strategy& strategy : plan::strategies()) {
    if (strategy.traits.*takes) names.emplace_back(strategy.name);
  }
  std::string text;
  for (size_t i = names.size(); i-- > 0;) text += names[i] + (i > 1 ? ", " : i == 1 ? " and " : "");
  return text;
}

}  // namespace

void declare_knobs(Options* options, RequestArguments* arguments) {
  plan::Options* knobs = &arguments->knobs;
  options->number("--token-slack", "Planned placements keep tokens max/mean at most 1 + X where possible",
                  &knobs->token_slack);
  options->integer("--ranks-per-group",
                   names_of(&plan::Traits::takes_ranks_per_group) +
                       ": ranks that split heads; 0: the largest divisor of the ranks that fits in a node",
                   &knobs->ranks_per_group);
  options->integer("--stripe-tokens", names_of(&plan::Traits::takes_stripe_tokens) + ": tokens of a stripe",
                   &knobs->stripe_tokens);
  options->bytes("--memory-budget",
                 "Most temporary and saved memory of a rank for one layer, such as 512MiB; 0: no limit",
                 &knobs->memory_budget_bytes);
}

std::string strategy_names() {
  std::string names;
  for (const plan::Strategy& strategy : plan::strategies()) {
    names += (names.empty() ? "" : ", ") + std::string(strategy.name);
  }
  return names;
}

void check_idle_knobs(const Options& options, const std::vector<std::string>& strategies, const std::string& command) {
  std::string names;
  for (const std::string& name : strategies) names += (names.empty() ? "" : ", ") + name;
  const std::string of_these =
      (strategies.size() == 1 ? " has no effect with the strategy " : " has no effect with ") + names;
  const auto uses = [&strategies](bool plan::Traits::*takes) {
    return std::any_of(strategies.begin(), strategies.end(), [takes](const std::string& name) {
      return name != simulate::kAuto && plan::find_strategy(name).traits.*takes;
    });
  };
  const auto refuse = [&](const char* name, bool used) {
    if (options.given(name) && !used) fail_invalid("[options] ", name, of_these, "; leave it out");
  };
  refuse("--ranks-per-group", uses(&plan::Traits::takes_ranks_per_group));
  refuse("--stripe-tokens", uses(&plan::Traits::takes_stripe_tokens));
  const bool chooses = std::find(strategies.begin(), strategies.end(), simulate::kAuto) != strategies.end();
  if (options.given("--token-slack") && !chooses && !uses(&plan::Traits::takes_token_slack)) {
    std::cerr << command << ": note: --token-slack" << of_these << "\n";
  }
}

void declare_quiet(Options* options, RequestArguments* arguments) {
  options->flag("--quiet", "Say nothing of progress on standard error", &arguments->quiet);
}

plan::Request read_request(const RequestArguments& arguments, const plan::Topology& topology,
                           const plan::CostModel& cost) {
  const plan::Mask mask = plan::parse_mask(arguments.mask);
  plan::Request request;
  request.documents = plan::Documents({1}, mask);  // stands in for what is read last, perhaps from a terminal
  request.shape = arguments.shape;
  request.shape.element = plan::parse_element_type(arguments.dtype);
  request.options = arguments.knobs;
  request.topology = topology;
  request.cost = cost;
  plan::validate(request);
  const std::string name = arguments.lengths == "-" ? "standard input" : arguments.lengths;
  request.documents = plan::Documents(read_lengths(arguments.lengths, name), mask);
  plan::validate(request);
  return request;
}

}  // namespace evenspan::cli
