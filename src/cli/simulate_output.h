// What `evenspan simulate` prints and writes.
#pragma once

#include <string>
#include <vector>

#include "evenspan/simulate/choose.h"
#include "evenspan/simulate/prediction.h"

namespace evenspan::cli {

// What the predictions have in common, for headings.
struct SimulationTitle {
  int64_t num_documents = 0;
  int64_t num_tokens = 0;
  std::string mask;
  double lower_bound_seconds = 0;  // of a step, whatever the plan
};

// A line on the scenario, one for each strategy, and what the columns mean. `choice`: what `auto` looked at; may be
// null.
std::string simulation_table(const simulate::Scenario& scenario, const SimulationTitle& title,
                             const std::vector<simulate::Prediction>& predictions, const simulate::Choice* choice);

// The lines of that table, its heading first: the strategy, then numbers.
std::vector<std::vector<std::string>> simulation_rows(const simulate::Scenario& scenario,
                                                      const std::vector<simulate::Prediction>& predictions);

// "32 layers of 32 heads, 8 kv heads of 128, bf16".
std::string model_words(const simulate::Model& model);

// "h100-sxm: 80 documents, ...": what all predictions have in common.
std::string simulation_heading(const simulate::Scenario& scenario, const SimulationTitle& title);

// One object; docs/simulator.md describes it.
std::string simulation_json(const simulate::Scenario& scenario, const SimulationTitle& title,
                            const std::vector<simulate::Prediction>& predictions, const simulate::Choice* choice);

// Trace events as Chrome and Perfetto read them: one layer's attention forward, then backward; a process for each rank
// of each strategy, with its two engines as threads and its arena as a counter. REQUIRES: timelines were recorded.
std::string simulation_trace(const std::vector<simulate::Prediction>& predictions);

}  // namespace evenspan::cli
