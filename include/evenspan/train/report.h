// What finished runs say about each other: the table and the page that `evenspan-train compare` makes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace evenspan::train {

// A run folder, read back.
struct RunRecord {
  struct Step {
    int64_t step = 0, tokens = 0, documents = 0;
    int64_t micro_batches = 1;    // the most of a replica
    double modelled_seconds = 0;  // 0 where the run has none
    double loss = 0, seconds = 0, work_max_over_mean = 1, tokens_max_over_mean = 1;
    std::vector<int64_t> rank_tokens;
    std::vector<double> rank_work;
    std::vector<std::vector<int64_t>> attention_bytes, optimizer_bytes;  // [from][to]
    int64_t forward_bytes = 0, ring_bytes = 0;
    std::vector<int64_t> lengths;                              // empty unless placement was recorded
    std::vector<std::vector<std::vector<int64_t>>> placement;  // [rank][span] = document, begin, end
  };
  std::string folder, strategy, dtype, checkpoint;
  int32_t num_ranks = 0, num_replicas = 1;
  int64_t num_parameters = 0, num_layers = 0;
  double held_out_loss = 0, seconds = 0;  // held_out_loss is not a number if there was none
  std::vector<Step> steps;
};

// Reads run.folder/metrics.jsonl and finds the last checkpoint. Throws invalid_argument for a folder that is not that
// of a finished run.
RunRecord read_run(const std::string& folder);

// The relative L2 distance of all weights of two checkpoints taken together: |a - b| / |b|, in float64.
double weight_distance(const std::string& checkpoint, const std::string& reference);

// Whether `run` equals `reference` (the same documents on one rank): in float64 the distance is at most 1e-8; otherwise
// at most 10 times the median distance of `repacked` (one-rank runs with the documents packed in other orders) from
// `reference`, at least 1e-6, and the first losses agree to 1e-6.
struct Comparison {
  RunRecord run, reference;
  double distance = 0;
  std::vector<double> repacked_distances;
  double allowed_distance = 0;
  double first_loss_difference = 0;
  double largest_loss_difference = 0;
  bool equal = false;
};
// Throws invalid_argument for runs of different lengths or types and for none repacked where the rule needs them.
Comparison compare_runs(const std::string& run, const std::string& reference, const std::vector<std::string>& repacked);

// A table for the terminal: losses side by side, ranks, bytes, the verdict with all its figures.
std::string comparison_table(const Comparison& comparison);

// One self-contained HTML page: placement, work, bytes between ranks, losses. No script, no network.
std::string comparison_page(const Comparison& comparison);

}  // namespace evenspan::train
