// What `evenspan batch` prints and writes.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/batch_simulation.h"
#include "cli/global_batches.h"
#include "evenspan/batch/planner.h"
#include "evenspan/simulate/model.h"

namespace evenspan::cli {

// Where the cost of micro-batches is from: a profile, a model and a memory, or published constants.
struct BatchMachine {
  batch::Cost cost;
  std::string name;                      // of the profile, or of the constants
  std::optional<simulate::Model> model;  // nothing: published constants
  std::string states;                    // with a model: how they are divided
  int64_t memory_bytes = 0;              // with a model, of a rank
  double state_bytes = 0;                // the same
  double token_bytes = 0;                // with a model
  int64_t context_limit = 0;             // with constants, thousands of tokens
  int64_t num_long_documents = 0;        // with constants, left out since they are longer
};

// What one planner made of one step.
struct BatchOutcome {
  batch::PlannedStep planned;
  batch::StepCost cost;
  double planning_seconds = 0;
  std::optional<SimulatedStep> simulated;  // where it was asked for
};

struct BatchStep {
  GlobalBatch batch;
  batch::StepBound bound;
  std::vector<BatchOutcome> outcomes;  // [planner]
};

struct BatchReport {
  BatchMachine machine;
  GlobalBatches batches;  // without their documents, which the steps have
  std::vector<const batch::Planner*> planners;
  std::vector<BatchStep> steps;
  bool has_times = true;  // of planning
};

// The machine, the documents, the memory and the bound, a sentence each, without full stops.
std::vector<std::string> batch_heading(const BatchReport& report);
// A line a planner, heading first.
std::vector<std::vector<std::string>> batch_rows(const BatchReport& report);
// What the columns of these lines mean, in lines of text.
std::string batch_columns(const BatchReport& report);
// The micro-batches of one plan, a line each, heading first.
std::vector<std::vector<std::string>> micro_batch_rows(const BatchOutcome& outcome,
                                                       const std::vector<int64_t>& lengths);

// Heading, lines and what they mean; of one step all micro-batches too.
std::string batch_table(const BatchReport& report);

// One object; docs/global_batches.md describes it.
std::string batch_json(const BatchReport& report);

// The micro-batches of a step and planner at a time as bars of time and of tokens, and the table.
std::string batch_page(const BatchReport& report);

}  // namespace evenspan::cli
