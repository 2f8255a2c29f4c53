// What a run needs beside its data and weights, read and checked before these are.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

#include "evenspan/comm/mesh.h"
#include "evenspan/machine/micro_batches.h"
#include "evenspan/nn/model_config.h"
#include "evenspan/plan/request.h"
#include "evenspan/simulate/prediction.h"
#include "evenspan/train/config.h"

namespace evenspan::train {

struct Setup {
  nn::ModelConfig model;
  at::ScalarType type = at::kFloat;            // of the computation
  comm::Mesh mesh;                             // of the run's ranks
  plan::Request request;                       // of a replica, without documents
  std::optional<simulate::Scenario> scenario;  // of a replica, by which plans are weighed; none without a profile
  machine::MicroBatchPlanner micro_batches;
  std::string resume;  // the checkpoint to go on from; empty: the run begins
  std::string note;    // what a user should know of the choices made for him; empty mostly
};

// Throws invalid_argument for the first thing that the run cannot do: a value out of its range, replicas that do not
// divide the ranks or do not lie alike on the machine, a strategy, transport, profile, topology or planner of
// micro-batches that does not exist or fit, a model that cannot be read or is not that of the weights, a checkpoint
// that is none; resource for a file that cannot be read and for documents that no micro-batch holds.
Setup prepare(const Config& config, int32_t num_ranks);

// Makes run.folder and the folder of its checkpoints. Throws resource where nothing can be written into one of them.
void make_run_folders(const Config& config);
// Throws as that does, and removes what it has made.
void try_run_folders(const Config& config);
// Throws invalid_argument where a folder of data holds the run's or is in it, so that one would spoil the other.
void check_run_folder(const Config& config);
std::string checkpoint_folder(const Config& config);

}  // namespace evenspan::train
