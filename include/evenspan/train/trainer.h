// The trainer: one function that every rank calls.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "evenspan/comm/communicator.h"
#include "evenspan/plan/plan_cache.h"
#include "evenspan/train/config.h"

namespace evenspan::train {

// Of one step, on rank 0.
struct StepReport {
  int64_t step = 0;  // from 1
  double loss = 0;   // mean over the labels of all ranks; 0 without labels
  int64_t tokens = 0, labels = 0, documents = 0;
  std::vector<int64_t> micro_batches;  // [replica]
  double learning_rate = 0;
  double gradient_norm = 0;  // before clipping
  double seconds = 0;
  // Of forward and backward of the slowest replica, by the planner of micro-batches; 0 without a named profile.
  double modelled_seconds = 0;
  double bound_seconds = 0;    // that no cut of the replicas' documents beats in that model; 0 as modelled_seconds
  double plan_seconds = 0;     // in which the step waited for its plans
  bool planned_ahead = false;  // the plans were asked for while the step before ran
  std::string plan_strategy;   // that made the plans, also where the configuration says auto: "mixed", "mixed, local"
  double tokens_max_over_mean = 1, work_max_over_mean = 1;  // of the sums over the micro-batches
  std::vector<int64_t> rank_tokens;                         // [rank]
  std::vector<double> rank_work;                            // [rank], modelled seconds
  std::vector<std::vector<int64_t>> attention_bytes;  // [from][to], seen leaving, forward and backward of all layers
  std::vector<std::vector<int64_t>> optimizer_bytes;  // [from][to], gradients and parameters
  std::vector<std::vector<std::vector<int64_t>>> placement;  // [rank][span] = document, begin, end; where recorded
  int64_t forward_bytes = 0;                                 // modelled, one forward of all layers
  int64_t ring_bytes = 0;                                    // modelled, one forward of all layers by `ring`
  int64_t arena_bytes = 0;     // largest over ranks and micro-batches, saved blocks of all layers included
  int64_t peak_rss_bytes = 0;  // of the process of rank 0, since its start
};

struct Summary {
  int64_t steps = 0;  // last step done
  double first_loss = 0, last_loss = 0;
  double held_out_loss = 0;  // not a number if nothing is held out
  int64_t tokens = 0;        // trained on in this call
  double seconds = 0;
  int stopped_by = 0;                               // the signal that ended the run after `steps`; 0: it is finished
  std::string checkpoint;                           // the last one written; empty if none
  plan::PlanCache::Counts plans, evaluation_plans;  // of this rank, a plan for each micro-batch
};

// How the caller ends a run early, between two steps or two batches of an evaluation. Empty functions: never.
struct Stop {
  std::function<void()> defer;    // called by every rank before its first step: from here on the run ends by `received`
  std::function<int()> received;  // asked by every rank, in the same places: the number of a signal, or 0
};

// Throws what train() throws before it reads data or weights, and makes run.folder. For programs that prepare data; one
// process calls it.
void check(const Config& config, int32_t num_ranks);

// Trains as the configuration says. Every rank of the communicator calls it with the same configuration and reads the
// same data; rank 0 prints to standard output and writes metrics.jsonl and checkpoints into run.folder. A signal that
// any rank received ends the run on all ranks after the same step, or the same batch of an evaluation, with a
// checkpoint where there is a run.folder; a run that goes on from there makes up for the evaluation.
// Before data and weights are read, all that the configuration says is checked.
// Threads: one thread per rank; sets the number of at:: threads of the calling thread.
// Throws invalid_argument, unsupported or resource for what the configuration and its files ask, communication when a
// rank fails.
Summary train(const Config& config, const comm::Communicator& communicator, const Stop& stop = {});

}  // namespace evenspan::train
