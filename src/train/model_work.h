// What planning knows of a model, and what its attention sends and keeps.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "evenspan/nn/model_config.h"
#include "evenspan/plan/plan.h"
#include "evenspan/plan/program.h"
#include "evenspan/simulate/model.h"

namespace evenspan::train {

// What the simulator and the planner know of a model.
simulate::Model simulated_model(const nn::ModelConfig& model, plan::ElementType element);

// Payload between ranks in one forward of all layers: softmax attention, states of linear layers, rows of their
// convolutions. `metrics` are the plan's.
struct ForwardBytes {
  int64_t planned = 0;
  int64_t by_ring = 0;  // if every document were cut into equal chunks, and states went from chunk to chunk
};
ForwardBytes forward_bytes(const nn::ModelConfig& model, const plan::Plan& plan, const plan::Metrics& metrics,
                           const std::string& transport);

// Of one rank: the largest arena of a layer, and what all layers save for backward. `program` is the plan's.
int64_t buffer_bytes(const nn::ModelConfig& model, const plan::Plan& plan, const plan::RankProgram& program,
                     const std::string& transport, Rank rank);

}  // namespace evenspan::train
