// evenspan strategies: the table of strategies.
#include <iostream>

#include "cli/command_table.h"
#include "cli/options.h"
#include "evenspan/plan/linear.h"
#include "plan/strategy/strategy.h"

namespace evenspan::cli {
namespace {

constexpr const char* kStrategiesSummary =
    "Lists the strategies, and the transports of linear layers' states, with what each sends in one layer's forward.";

constexpr const char* kStrategiesExamples = R"(Examples:
  evenspan strategies
  evenspan plan --lengths lengths.txt --ranks 4 --strategy zigzag)";

constexpr const char* kSymbols =
    "P ranks, N tokens, H query heads, K kv heads, D head dimension, e bytes per element; n_r tokens, H_r query heads\n"
    "and K_r kv heads of rank r; u ranks per group, N_g tokens of group g. docs/algorithms.md explains the formulas.\n";

constexpr const char* kStateSymbols =
    "of a document in m parts; S a state, heads x key_dim x value_dim in the accumulation type, M a transition: "
    "nothing,\n"
    "heads, heads x key_dim, or of delta rules heads x key_dim^2 of it. docs/linear.md describes them.\n";

Options strategies_declared() { return {"evenspan strategies", kStrategiesSummary, kStrategiesExamples, {}}; }

}  // namespace

OptionList strategies_options() { return strategies_declared().list(); }

int strategies_command(const Arguments& words) {
  Options options = strategies_declared();
  if (!options.parse(words)) return kDone;
  for (const plan::Strategy& strategy : plan::strategies()) {
    std::cout << strategy.name << std::string(16 - std::min<size_t>(15, strategy.name.size()), ' ') << strategy.summary
              << "\n"
              << std::string(16, ' ') << "sends " << strategy.formula << "\n";
  }
  std::cout << "\n" << kSymbols << "\nStates of linear layers travel on any of these plans:\n";
  for (const plan::TransportInfo& transport : plan::transports()) {
    std::cout << transport.name << std::string(16 - std::min<size_t>(15, transport.name.size()), ' ')
              << transport.summary << "\n"
              << std::string(16, ' ') << "sends " << transport.formula << "\n";
  }
  std::cout << "\n" << kStateSymbols;
  return kDone;
}

}  // namespace evenspan::cli
