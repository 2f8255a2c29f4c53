// evenspan batch: which documents of a global batch share a micro-batch, on which ranks, and what the step takes.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>
#include <optional>

#include "cli/batch_options.h"
#include "cli/batch_output.h"
#include "cli/command_table.h"
#include "cli/input.h"
#include "cli/solver_source.h"
#include "cli/watch.h"
#include "evenspan/batch/machine_cost.h"
#include "evenspan/core/error.h"

namespace evenspan::cli {
namespace {

constexpr const char* kBatchSummary =
    "Plans global batches that no memory holds at once: micro-batches, and the ranks of every document.";

constexpr const char* kBatchExamples = R"(Examples:
  evenspan batch --lengths lengths.txt --ranks 64 --memory-bytes 80GiB --states all --global-batch-documents 512
  evenspan batch --lengths lengths.txt --ranks 64 --memory-bytes 80GiB --model config.json --html batches.html
  evenspan batch --lengths lengths.txt --ranks 64 --constants flexsp-7b --published-lengths \
    --global-batch-documents 512 --num-steps 10 --planner auto,flexsp,homogeneous,static

Documents that fill no global batch at the end are left out, unless they are all that there are. The model keeps all
activations. flexsp needs HiGHS: pip install highsbox. docs/global_batches.md has the cost model and the planners.
Exit code: 0 planned, 2 bad arguments or input.)";

constexpr int64_t kMostTokens = int64_t{1} << 40;  // of a document; their sums stay far below 2^63

Options declared(BatchArguments* arguments) {
  Options options("evenspan batch", kBatchSummary, kBatchExamples, {"--lengths"});
  declare_batch_options(&options, arguments);
  return options;
}

// The tokens for which a rank has memory.
int64_t capacity_of(const simulate::Scenario& scenario, int64_t memory_bytes, batch::StateLayout layout) {
  try {
    return batch::capacity_tokens(scenario.model, scenario.machine.topology.num_ranks, memory_bytes, layout);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::resource || layout == batch::StateLayout::sharded) throw;
    fail(error.kind(), error.what(), "; --states all divides weights and gradients over the ranks too");
  }
}

// Fills in the scenario where the machine is none of published constants.
BatchMachine read_batch_machine(const Options& options, BatchArguments* arguments,
                                std::optional<simulate::Scenario>* given) {
  BatchMachine out;
  if (options.given("--constants")) {
    out.name = arguments->constants;
    out.context_limit = arguments->context_limit;
    out.cost = batch::published_cost(published_model_of(arguments->constants), arguments->request.ranks,
                                     static_cast<double>(arguments->context_limit));
  } else {
    const simulate::Scenario& scenario =
        given->emplace(read_machine(options, arguments->scenario, &arguments->request));
    simulate::validate(scenario.machine);
    simulate::validate(scenario.model);
    const batch::StateLayout layout = batch::parse_state_layout(arguments->states);
    out.cost = batch::machine_cost(scenario);
    out.cost.capacity_tokens = capacity_of(scenario, arguments->memory_bytes, layout);
    out.name = scenario.profile.name;
    out.model = scenario.model;
    out.states = arguments->states;
    out.memory_bytes = arguments->memory_bytes;
    out.state_bytes = batch::state_bytes(scenario.model, layout, out.cost.num_ranks);
    out.token_bytes = batch::token_bytes(scenario.model);
  }
  batch::validate(out.cost);
  return out;
}

// Of a rank, so that all ranks together hold a document of so many tokens; rounded up.
int64_t memory_gibibytes(int64_t tokens, const BatchMachine& machine) {
  const auto share = static_cast<double>((tokens + machine.cost.num_ranks - 1) / machine.cost.num_ranks);
  const double bytes = machine.state_bytes + share * machine.token_bytes;
  return static_cast<int64_t>(std::ceil(bytes / static_cast<double>(int64_t{1} << 30)));
}

std::vector<int64_t> read_documents(const BatchArguments& arguments, BatchMachine* machine) {
  const std::string name = arguments.request.lengths == "-" ? "standard input" : arguments.request.lengths;
  std::vector<int64_t> lengths = read_lengths(arguments.request.lengths, name);
  const bool has_limit = !machine->model.has_value() && !arguments.published_lengths;
  const int64_t limit = has_limit ? 1000 * arguments.context_limit : kMostTokens;
  for (size_t i = 0; i < lengths.size(); ++i) {
    if (lengths[i] <= limit) continue;
    fail_invalid("[batch] document ", i, " has ", lengths[i], " tokens and the ",
                 has_limit ? "context limit is " : "most that is planned is ", limit,
                 has_limit ? "; raise --context-limit, add --published-lengths, which leaves longer documents out, or "
                             "leave the document out"
                           : "; leave the document out");
  }
  if (arguments.published_lengths) {
    const size_t all = lengths.size();
    lengths = batch::published_lengths(lengths, arguments.context_limit);
    machine->num_long_documents = static_cast<int64_t>(all - lengths.size());
  }
  try {
    batch::check_documents(lengths, machine->cost);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::resource || !machine->model) throw;
    fail(ErrorKind::resource, error.what(), "; the longest document needs --memory-bytes ",
         memory_gibibytes(*std::max_element(lengths.begin(), lengths.end()), *machine), "GiB");
  }
  return lengths;
}

}  // namespace

OptionList batch_options() {
  BatchArguments arguments;
  return declared(&arguments).list();
}

int batch_command(const Arguments& words) {
  BatchArguments arguments;
  Options options = declared(&arguments);
  if (!options.parse(words)) return kDone;
  BatchReport report;
  report.planners = check_batch_options(options, &arguments);
  std::optional<simulate::Scenario> scenario;
  report.machine = read_batch_machine(options, &arguments, &scenario);
  if (arguments.simulates && scenario->machine.shares_cores()) {
    fail(ErrorKind::unsupported, "[batch] --simulate takes a core for each rank, and the topology has ",
         scenario->machine.num_cores, " for all; leave --simulate or the cores out");
  }
  report.has_times = !arguments.no_times;
  const batch::Cost& cost = report.machine.cost;
  const batch::SolverSource solver = solver_source(arguments.highs);
  // What a planner refuses, and a solver that is not there, shows at a single document: before data is read, and before
  // other planners have worked for minutes.
  const auto try_document = [&](int64_t length) {
    for (const batch::Planner* planner : report.planners) {
      batch::plan_step(*planner, std::vector<int64_t>{length}, cost, arguments.knobs, solver);
    }
  };
  try_document(1);
  const std::vector<int64_t> lengths = read_documents(arguments, &report.machine);
  report.batches = cut_global_batches(arguments.batches, lengths);

  Watch watch("evenspan batch", arguments.request.quiet);
  int64_t longest = 0;
  for (const GlobalBatch& global : report.batches.chosen) {
    longest = std::max(longest, *std::max_element(global.lengths.begin(), global.lengths.end()));
  }
  try_document(longest);
  const auto count = static_cast<int64_t>(report.batches.chosen.size());
  const auto num_planners = static_cast<int64_t>(report.planners.size());
  for (GlobalBatch& global : report.batches.chosen) {
    const auto done = static_cast<int64_t>(report.steps.size());
    BatchStep& step = report.steps.emplace_back();
    step.batch = std::move(global);
    step.bound = batch::lower_bound(step.batch.lengths, cost);
    for (const batch::Planner* planner : report.planners) {
      const auto number = done * num_planners + static_cast<int64_t>(step.outcomes.size());
      watch.work().tell(number, count * num_planners);
      BatchOutcome& outcome = step.outcomes.emplace_back();
      const auto start = std::chrono::steady_clock::now();
      outcome.planned = batch::plan_step(*planner, step.batch.lengths, cost, arguments.knobs, solver);
      outcome.planning_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      outcome.cost = batch::price(outcome.planned.plan, step.batch.lengths, cost);
      if (!arguments.simulates) continue;
      outcome.simulated = simulate_step(outcome.planned.plan, step.batch.lengths, *scenario,
                                        watch.work().part(number, count * num_planners));
    }
  }
  watch.stop();
  report.batches.chosen.clear();
  (arguments.json == "-" || arguments.html == "-" ? std::cerr : std::cout) << batch_table(report);
  std::vector<std::pair<std::string, std::string>> outputs;
  if (!arguments.json.empty()) outputs.emplace_back(arguments.json, batch_json(report));
  if (!arguments.html.empty()) outputs.emplace_back(arguments.html, batch_page(report));
  write_outputs(outputs);
  return kDone;
}

}  // namespace evenspan::cli
