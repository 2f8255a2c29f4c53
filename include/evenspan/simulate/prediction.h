// What a training step costs with a plan on a machine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "evenspan/core/work_part.h"
#include "evenspan/plan/plan.h"
#include "evenspan/simulate/simulator.h"

namespace evenspan::simulate {

// What is simulated. REQUIRES: all valid, and the profile has attention times for the model's shape.
struct Scenario {
  Machine machine;
  Profile profile;
  Model model;
};

// One layer's attention when all ranks begin it together.
struct PassPrediction {
  double makespan_seconds = 0;
  std::vector<RankUse> ranks;                // [rank]; empty by formula
  std::vector<Interval> timeline;            // when recorded
  std::vector<int64_t> sent_bytes_by_level;  // [level of the machine], all ranks together
};

// One layer: softmax attention, or linear attention with its local part and states.
struct LayerPrediction {
  int32_t num_layers = 0;  // of this kind
  PassPrediction forward, backward;
};

struct Prediction {
  std::string strategy;
  bool by_formula = false;               // from a closed form, not from programs
  PassPrediction forward, backward;      // of the widest kind of softmax layers, whose plan it is
  std::vector<LayerPrediction> windows;  // of LayersOfPlan::others; empty by formula
  std::vector<LayerPrediction> linear;   // of each kind of the model's linear layers; empty by formula
  double step_seconds = 0;       // forward and backward of the whole model, from all ranks' begin to the last one's end
  double idle_fraction = 0;      // of the step's ranks x seconds: compute engines that do nothing
  int64_t peak_arena_bytes = 0;  // most on a rank in either pass of a softmax layer; 0 by formula
  int64_t peak_saved_bytes = 0;  // most on a rank, of one softmax layer; 0 by formula
  double tokens_max_over_mean = 1;
  double work_max_over_mean = 1;  // by the request's cost model
};

// Lowers the plan rank by rank and simulates it. The step is
//   forward of every layer: query, key and value projections, attention, output projection and MLP;
//   the output layer with its loss, forward and backward; backward of every layer in reverse, the softmax layers
//   standing first, those of the plan before those with narrower windows, and then the linear layers;
// where ranks wait for each other in attention's exchanges and nowhere else: a rank that is done with a layer goes on.
// Layers are simulated one after another, each rank beginning where it ended the one before, until three in a row have
// taken the same time on every rank, to a millionth; the rest then take that time too. Up to there the composition is
// exact within the model; beyond, ranks that share only a card, and that drift apart, might share it otherwise. Not
// modelled: the optimiser, the reduction of gradients, recomputation, and that transfers slow kernels down. REQUIRES:
// plan.request has the scenario's topology and shape, and is of the model's widest layers (simulate/layers.h). `work`
// is told of ranks that are lowered and of layers that are simulated.
Prediction predict(const plan::Plan& plan, const Scenario& scenario, Timeline timeline = Timeline::skip,
                   const WorkPart& work = {});

}  // namespace evenspan::simulate
