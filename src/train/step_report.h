// What a step says of itself: how it was divided and cut, the plans of its micro-batches, and what all ranks saw.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "evenspan/comm/communicator.h"
#include "evenspan/comm/mesh.h"
#include "evenspan/nn/model_config.h"
#include "evenspan/train/trainer.h"
#include "train/batch_planner.h"

namespace evenspan::train {

// Number and modelled seconds of the micro-batches. Every rank may call it.
void describe_division(const PlannedBatch& planned, StepReport* report);

// Throws communication on every rank unless all have divided and cut the batch alike. Collective.
void compare_divisions(const PlannedBatch& planned, const comm::Communicator& communicator);

// What the plans of one replica are, in sums over its micro-batches.
struct ReplicaPlans {
  std::vector<int64_t> tokens;  // [rank of the replica]
  std::vector<double> work;     // [rank of the replica], modelled seconds
  int64_t forward_bytes = 0, ring_bytes = 0;
  uint64_t strategies = 0;  // bit i: the i-th of the table has made one
};
ReplicaPlans measure_plans(const PlannedBatch& planned, int32_t num_ranks, const nn::ModelConfig& model,
                           const std::string& transport);

// What one rank saw of the step.
struct OwnView {
  double loss = 0;          // its share of the mean over all labels
  int64_t arena_bytes = 0;  // the largest of its micro-batches
  int signal = 0;           // received; 0: none
  ReplicaPlans plans;       // of its replica, on that one's first rank; on the others not looked at
};

// Puts the ranks' views together on every rank, with the bytes that left each, which `recorded` then forgets. Returns
// the greatest signal that a rank has received. Collective.
int gather_views(const OwnView& own, const comm::Mesh& mesh, const comm::Communicator& communicator,
                 comm::Recorded* recorded, StepReport* report);

// Of each rank its spans in all micro-batches, one after another, by the documents of the whole batch. Collective.
std::vector<std::vector<std::vector<int64_t>>> gather_placement(const PlannedBatch& planned, Rank rank_of_replica,
                                                                const comm::Communicator& communicator);

}  // namespace evenspan::train
