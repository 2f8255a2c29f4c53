// An optimiser step's documents divided over replicas of the model and cut into micro-batches, within what the user of
// a run allows one to hold.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "evenspan/batch/cost.h"
#include "evenspan/batch/planner.h"
#include "evenspan/plan/request.h"
#include "evenspan/simulate/prediction.h"

namespace evenspan::machine {

struct MicroBatchLimits {
  std::string planner = "auto";    // of batch::planners()
  int64_t micro_batch_tokens = 0;  // most of all ranks of a replica together; 0: no such limit
  // Bytes of a rank, for states as batch::StateLayout::sharded_optimizer and activations; 0: no limit.
  int64_t memory_budget = 0;

  bool any() const { return micro_batch_tokens > 0 || memory_budget > 0; }
};

// Of one replica.
struct MicroBatches {
  std::vector<std::vector<int64_t>>
      documents;       // [micro-batch], as they run: indices of the step's documents, ascending; none without documents
  double seconds = 0;  // modelled, forward and backward of all; 0 without limits
  double bound_seconds = 0;  // that no plan of these documents beats; 0 without limits
};

// The same documents give the same micro-batches on every rank. Threads: any number may call.
class MicroBatchPlanner {
 public:
  // Without limits: what a replica has of a step is one micro-batch. Documents are weighed by the cost model.
  explicit MicroBatchPlanner(plan::CostModel weights = {}, int32_t num_replicas = 1)
      : num_replicas_(num_replicas), weights_(std::move(weights)) {}
  // By the scenario's times; without one as batch::operation_cost() counts. `num_ranks` are those of one replica, as
  // the scenario's. Throws invalid_argument for a planner that does not exist or takes no such number of ranks, and for
  // limits that hold no token a rank; unsupported for a planner that a clock stops; resource for memory that the
  // model's states fill. REQUIRES: limits.any(), and none is negative.
  MicroBatchPlanner(const simulate::Model& model, int32_t num_ranks, const std::optional<simulate::Scenario>& scenario,
                    MicroBatchLimits limits, int32_t num_replicas = 1);

  // Most tokens of a rank in a micro-batch; none without limits.
  std::optional<int64_t> capacity_tokens() const;

  // Throws resource where no micro-batch holds so many tokens of one document: `what`, such as "document 3", has them.
  // The text says which limit to raise, and how far.
  void check_length(int64_t tokens, const std::string& what) const;

  // Of documents that are all one replica's. Throws as check_length() and batch::plan_step().
  MicroBatches plan(std::span<const int64_t> lengths) const;

  // [replica]: every document in one of them, so that the slowest replica is done early by the planner's times
  // (batch/replicas.h); without limits, so that the sum of its documents' weights is small. Numbers of micro-batches
  // differ where that is faster, and a replica has none where there is no document for it. Throws as plan().
  std::vector<MicroBatches> divide(std::span<const int64_t> lengths) const;

 private:
  double weight(int64_t length) const;

  int32_t num_replicas_ = 1;
  plan::CostModel weights_;  // without limits
  MicroBatchLimits limits_;
  const batch::Planner* planner_ = nullptr;  // none without limits, as with the cost
  std::optional<batch::Cost> cost_;
  double state_bytes_ = 0, token_bytes_ = 0;  // of a rank
};

}  // namespace evenspan::machine
