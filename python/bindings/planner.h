// Plans for Python: batches of one model on one set of ranks.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "bindings/plan_handle.h"
#include "evenspan/plan/documents.h"
#include "evenspan/plan/plan_cache.h"
#include "evenspan/simulate/planner.h"

namespace evenspan::python {

// One mask for all documents, or one for each.
using MaskArgument = std::variant<std::string, std::vector<std::string>>;

// Throws invalid_argument for another number of masks than documents, and for masks and lengths that are none.
plan::Documents make_documents(const std::vector<int64_t>& lengths, const MaskArgument& mask);

using ModelSizes = std::tuple<int32_t, int64_t, int64_t, int64_t>;  // layers, hidden, intermediate, vocabulary
using ModelArgument = std::optional<std::variant<ModelSizes, std::string>>;

// The kinds of softmax layers: how many, and the keys that a query sees; none: all before it.
using LayersArgument = std::vector<std::pair<int32_t, std::optional<int64_t>>>;

// As evenspan.plan of Python has them, which says what they mean and has the defaults.
struct PlannerOptions {
  int32_t ranks, ranks_per_node;
  std::optional<std::string> topology;
  std::string strategy;
  int32_t heads, kv_heads, head_dim;
  std::string dtype;
  double token_slack;
  int32_t ranks_per_group;
  int64_t memory_budget;
  std::optional<std::string> profile;
  ModelArgument model;
  LayersArgument layers;  // empty: one plan, of the masks that are given
  int64_t capacity;       // batches whose plans are kept, at least 1
};

// Plans batches that differ in their documents only, and the next one in the background. Threads: any, and none needs
// the interpreter's lock. All members throw what a plan of the batch throws.
class Planner {
 public:
  explicit Planner(PlannerOptions options);

  void prefetch(const std::vector<int64_t>& lengths, const MaskArgument& mask);
  // Of each kind of layers. Those that have the same plan have the same object.
  std::vector<std::shared_ptr<PlanHandle>> plans(const std::vector<int64_t>& lengths, const MaskArgument& mask);
  // Of documents that each lie on the ranks of its group (plan::make_plan_of_groups()); named `ulysses`. REQUIRES: the
  // planner has no kinds of layers.
  std::shared_ptr<PlanHandle> plan_of_groups(const std::vector<int64_t>& lengths, const MaskArgument& mask,
                                             const std::vector<std::vector<int64_t>>& groups) const;
  // Which documents share a micro-batch of at most so many tokens on all ranks, by the scenario or by operations.
  // Throws as machine::MicroBatchPlanner.
  std::vector<std::vector<int64_t>> micro_batches(const std::vector<int64_t>& lengths, int64_t tokens,
                                                  const std::string& planner) const;
  // What a user should know of the last choice and was not told; empty mostly.
  std::string take_note();
  std::map<std::string, int64_t> counts() const;

 private:
  void add_note(const std::string& note);
  // Sets the scenario, and a note where its profile is the default one.
  void read_scenario(const PlannerOptions& options);
  plan::Request request_of(const std::vector<int64_t>& lengths, const MaskArgument& mask) const;
  plan::LayerPlans make(plan::Request request);

  std::mutex note_mutex_;
  std::string note_;
  const LayersArgument layers_;
  const simulate::Model model_;
  plan::Request request_;                       // without documents
  std::optional<simulate::Scenario> scenario_;  // set by the constructor alone
  plan::PlanCache cache_;                       // last: its thread uses the rest
};

}  // namespace evenspan::python
