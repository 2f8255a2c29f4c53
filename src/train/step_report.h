// What a step says of itself: the plans of its micro-batches, and what all ranks saw.
#pragma once

#include <string>

#include "evenspan/comm/communicator.h"
#include "evenspan/nn/model_config.h"
#include "evenspan/train/trainer.h"
#include "train/batch_planner.h"

namespace evenspan::train {

// Number, names and modelled seconds of the plans. Every rank may call it.
void describe_plans(const PlannedBatch& planned, StepReport* report);

// What the ranks were given, in sums over the micro-batches, and the bytes of one forward.
void measure_plans(const PlannedBatch& planned, const nn::ModelConfig& model, const std::string& transport,
                   StepReport* report);

// What one rank saw of the step.
struct OwnView {
  double loss = 0;          // its share of the mean over all labels
  int64_t arena_bytes = 0;  // the largest of its micro-batches
  int signal = 0;           // received; 0: none
};

// Puts the ranks' views together on every rank, with the bytes that left each, which `recorded` then forgets. Returns
// the greatest signal that a rank has received. Collective.
int gather_views(const OwnView& own, const comm::Communicator& communicator, comm::Recorded* recorded,
                 StepReport* report);

}  // namespace evenspan::train
