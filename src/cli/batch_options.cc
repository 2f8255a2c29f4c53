#include "cli/batch_options.h"

#include <algorithm>
#include <cmath>
#include <sstream>

#include "evenspan/batch/machine_cost.h"
#include "evenspan/core/error.h"
#include "evenspan/core/nearest.h"
#include "evenspan/core/quoted.h"

namespace evenspan::cli {
namespace {

constexpr int64_t kMostMemoryBytes = int64_t{1} << 44;
constexpr int64_t kMostContextLimit = 1000000;
constexpr int32_t kMostRanks = 1 << 20;

template <class Item, class Name>
std::string listed(const Item& items, Name&& name) {
  std::string list;
  for (const auto& item : items) list += (list.empty() ? "" : ", ") + std::string(name(item));
  return list;
}

std::string planner_names() {
  return listed(batch::planners(), [](const batch::Planner& planner) { return planner.name; });
}

std::vector<const batch::Planner*> split_planners(const std::string& text) {
  std::vector<const batch::Planner*> planners;
  std::istringstream in(text + ",");
  for (std::string name; std::getline(in, name, ',');) {
    const batch::Planner* planner = &batch::find_planner(name);
    if (std::find(planners.begin(), planners.end(), planner) != planners.end()) {
      fail_invalid("[options] --planner names ", name, " twice; name each planner once");
    }
    planners.push_back(planner);
  }
  return planners;
}

// Whether any of the planners reads this field of PlannerOptions.
bool any_reads(const std::vector<const batch::Planner*>& planners, std::string_view field) {
  return std::any_of(planners.begin(), planners.end(), [field](const batch::Planner* planner) {
    std::istringstream words{std::string(planner->options)};
    for (std::string word; words >> word;) {
      if (word == field) return true;
    }
    return false;
  });
}

void check_knobs(const Options& options, const std::vector<const batch::Planner*>& planners,
                 const batch::PlannerOptions& knobs) {
  constexpr const char* kReaders[][2] = {{"--solver-seconds", "solver_seconds"},
                                         {"--highs", "solver_seconds"},
                                         {"--paper-slots", "prune_slots"},
                                         {"--static-degree", "static_degree"}};
  for (const auto& [name, field] : kReaders) {
    if (!options.given(name) || any_reads(planners, field)) continue;
    fail_invalid("[options] ", name, " has no effect with ", planners.size() == 1 ? "the planner " : "the planners ",
                 listed(planners, [](const batch::Planner* planner) { return planner->name; }), "; leave it out");
  }
  if (!(knobs.solver_seconds > 0 && std::isfinite(knobs.solver_seconds))) {
    fail_invalid("[options] --solver-seconds is ", knobs.solver_seconds, "; give a time above 0");
  }
}

void check_constants(const Options& options, const BatchArguments& arguments) {
  if (!options.given("--constants")) {
    for (const char* name : {"--context-limit", "--published-lengths"}) {
      if (options.given(name)) fail_invalid("[options] ", name, " has no effect without --constants; leave it out");
    }
    return;
  }
  for (const char* name : {"--profile", "--model", "--memory-bytes", "--states", "--dtype", "--topology",
                           "--ranks-per-node", "--simulate"}) {
    if (options.given(name)) {
      fail_invalid("[options] ", name, " has no effect with --constants, which are of one machine, model and memory; ",
                   "leave one of the two out");
    }
  }
  published_model_of(arguments.constants);
  if (arguments.context_limit < 1 || arguments.context_limit > kMostContextLimit) {
    fail_invalid("[options] --context-limit is ", arguments.context_limit, "; it is in thousands of tokens, from 1 to ",
                 kMostContextLimit);
  }
  if (options.given("--ranks") && (arguments.request.ranks < 1 || arguments.request.ranks > kMostRanks)) {
    fail_invalid("[options] there are ", arguments.request.ranks, " ranks; give 1 to ", kMostRanks);
  }
}

void check_memory(const Options& options, const BatchArguments& arguments) {
  if (options.given("--constants")) return;
  if (!options.given("--memory-bytes")) {
    fail_invalid("[options] --memory-bytes is missing: the memory of a rank, such as 80GiB; see evenspan batch --help");
  }
  if (arguments.memory_bytes < 1 || arguments.memory_bytes > kMostMemoryBytes) {
    fail_invalid("[options] --memory-bytes is ", arguments.memory_bytes, "; a rank has 1 to ", kMostMemoryBytes,
                 " bytes");
  }
  batch::parse_state_layout(arguments.states);
}

}  // namespace

std::string constants_name(const batch::PublishedModel& model) { return "flexsp-" + std::string(model.name); }

std::string published_model_of(const std::string& constants) {
  std::vector<std::string> names;
  for (const batch::PublishedModel& model : batch::published_models()) {
    names.push_back(constants_name(model));
    if (names.back() == constants) return std::string(model.name);
  }
  fail_invalid("[options] there are no constants ", quoted(constants), "; there are ",
               listed(names, [](const std::string& name) { return name; }), did_you_mean(constants, names));
}

void declare_batch_options(Options* options, BatchArguments* arguments) {
  declare_batch(options, &arguments->request);
  declare_machine(options, &arguments->request, &arguments->scenario, "Llama 3 8B");
  declare_dtype(options, &arguments->request);
  options->bytes("--memory-bytes", "Memory of a rank, such as 80GiB; required but with --constants",
                 &arguments->memory_bytes, Default::hidden);
  options->text(
      "--states", "LAYOUT",
      "What is divided over all ranks: optimizer, the optimiser's states alone; or all, weights and gradients "
      "too",
      &arguments->states);
  options->text("--constants", "NAME",
                "FlexSP's published constants instead of a profile, a model and a memory: " +
                    listed(batch::published_models(), constants_name),
                &arguments->constants);
  options->integer("--context-limit", "--constants: the longest document, in thousands of tokens",
                   &arguments->context_limit);
  options->flag("--published-lengths",
                "--constants: round lengths up to 128 and leave out longer documents than the limit, as the published "
                "runs do",
                &arguments->published_lengths);
  declare_global_batches(options, &arguments->batches);
  options->text("--planner", "NAME,...",
                "Some of " + planner_names() + ", with commas; docs/global_batches.md describes them",
                &arguments->planners);
  options->number("--solver-seconds", "flexsp: seconds that the program of a micro-batch may take",
                  &arguments->knobs.solver_seconds);
  options->flag("--paper-slots",
                "flexsp: all groups that fit may exist, as in the paper; without, those of the published code",
                &arguments->paper_slots);
  options->text("--highs", "FILE",
                "flexsp: the library of HiGHS, libhighs.so; without, that of the Python package highsbox",
                &arguments->highs);
  options->integer("--static-degree", "static: ranks of every group, a power of two; 0: the most that there is",
                   &arguments->knobs.static_degree);
  options->flag("--simulate",
                "Simulate the programs of every micro-batch too, placed by the planner, by the strategy "
                "mixed and by the fastest strategy; seconds for each",
                &arguments->simulates);
  options->text("--json", "OUT", "Write all plans and their costs as JSON; - is standard output", &arguments->json);
  options->text("--html", "OUT", "Write a page with pictures of every step; - is standard output", &arguments->html);
  options->flag("--no-times", "Leave planning times out, so that the same input gives the same output",
                &arguments->no_times);
  declare_quiet(options, &arguments->request);
}

std::vector<const batch::Planner*> check_batch_options(const Options& options, BatchArguments* arguments) {
  check_constants(options, *arguments);
  check_topology(options, "evenspan batch");
  check_memory(options, *arguments);
  check_global_batches(options, arguments->batches);
  arguments->knobs.prune_slots = !arguments->paper_slots;
  std::vector<const batch::Planner*> planners = split_planners(arguments->planners);
  check_knobs(options, planners, arguments->knobs);
  check_files(arguments->request, arguments->scenario, {{"--json", arguments->json}, {"--html", arguments->html}});
  return planners;
}

}  // namespace evenspan::cli
