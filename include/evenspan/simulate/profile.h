// What a machine costs: measured times of its kernels, its memory and its links.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "evenspan/plan/request.h"
#include "evenspan/plan/tile.h"
#include "evenspan/simulate/model.h"

namespace evenspan::simulate {

enum class Pass : uint8_t { forward, backward };

// Times of one pass. `seconds` are of one query head, [query][key] over the grid of AttentionTimes, without the rest.
struct PassTimes {
  double operation_seconds = 0;  // of each Attend operation, whatever it holds: launches, the host's work
  double segment_seconds = 0;    // of each of its segments
  std::vector<double> seconds;   // all positive
  // Measured causal squares: seconds of one head for each of AttentionTimes::squares, all positive.
  std::vector<double> square_seconds = {};  // NOLINT(readability-redundant-member-init): as in CostModel
  // Of a result that is added to another after the kernel: each, and each of its rows of one head.
  double merge_seconds = 0;
  double merge_row_seconds = 0;
};

// Attention kernels of one head dimension. A time between the points of the grid is interpolated, linearly in queries
// and in keys, which is exact where time is a + b q + c k + d q k; no queries or no keys take no time; beyond the last
// points the last slope goes on.
struct AttentionTimes {
  int32_t head_dim = 0;
  std::vector<plan::ElementType> elements;  // that the times hold for; not empty
  int64_t tile = 1;                         // rows and keys count in whole tiles of so many
  std::vector<int64_t> queries;             // ascending, positive
  std::vector<int64_t> keys;                // ascending, positive
  std::vector<int64_t> squares;             // rows of measured causal squares, ascending, positive; may be empty
  PassTimes forward, backward;

  const PassTimes& times(Pass pass) const { return pass == Pass::forward ? forward : backward; }
};

// Seconds of one segment, without those of its operation and of merging its results. A causal square costs what was
// measured, its seconds per row interpolated linearly in rows, exact where time is a n + b n^2, and constant below the
// first square; without measured squares n rows and (n + tile) / 2 keys, the tiles that its pairs touch. Window and
// band tiles cost their whole rectangle, since kernels mask it.
double segment_seconds(const AttentionTimes& times, Pass pass, plan::TileKind kind, int64_t num_queries,
                       int64_t num_keys, int32_t num_heads);

// How ranks reach each other at one level of a topology. Each direction has the whole bandwidth.
struct Link {
  double latency_seconds = 0;        // from the moment when both ends are ready to the first byte, >= 0
  double bytes_per_second = 0;       // of one rank, > 0
  int32_t cards = 0;                 // network cards that a group of the level below shares; 0: no limit but its ranks'
  double card_bytes_per_second = 0;  // of one card, > 0 if there are any
  double message_seconds = 0;        // more latency for each further message of an exchange to the same rank, >= 0
  // What messages take from the compute engines at both ends, each byte and each message; 0 where others move them.
  double compute_byte_seconds = 0;
  double compute_message_seconds = 0;
};

// An immutable value once validated.
struct Profile {
  std::string name;
  std::vector<AttentionTimes> attention;
  double memory_bytes_per_second = 0;    // of Copy, Accumulate and Clear: bytes read and bytes written together
  double memory_operation_seconds = 0;   // of each such operation
  double memory_pair_seconds = 0;        // of each of its blocks or pairs of blocks
  double forward_flops_per_second = 0;   // of the token-wise layers
  double backward_flops_per_second = 0;  // the same; their backward has twice the operations of their forward
  int32_t ranks_per_node = 0;            // of the machine that was measured, >= 1
  std::vector<Link> links;               // innermost first: inside a node, between nodes; at least one
};

// Throws invalid_argument for the first broken rule; the text names the profile.
void validate(const Profile& profile);

// The times for a shape. Throws invalid_argument, naming what the profile has, when it has none of that head dimension
// and element type.
const AttentionTimes& attention_times(const Profile& profile, const plan::AttentionShape& shape);

// Seconds that a token takes in all but softmax attention, forward and backward: token-wise layers, and the local part
// of linear ones.
double token_seconds(const Profile& profile, const Model& model);

// The planner's cost model for a model on this machine: what a pair and a token cost where tiles are large.
plan::CostModel cost_model(const Profile& profile, const Model& model);

// The same without a machine: by operations, of which a processor does 1e12 a second. Only the ratio of pair and token
// matters to a placement.
plan::CostModel cost_model(const Model& model);

// A topology with the links of its levels.
struct Machine {
  plan::Topology topology;  // its levels have the links' latency and bandwidth
  std::vector<Link> links;  // [level]
  int32_t num_cores = 0;    // that all ranks compute on, each on one at a time; 0: each has one of its own

  bool shares_cores() const { return num_cores > 0 && num_cores < topology.num_ranks; }
};

// Nodes of `ranks_per_node` ranks (0: the profile's), the last perhaps smaller, with the profile's links. Throws
// invalid_argument when there are several nodes and the profile has no link between nodes. The one link of a profile of
// nodes of one rank is that between nodes.
Machine make_machine(const Profile& profile, int32_t num_ranks, int32_t ranks_per_node);

// The machine of one of `num_replicas` groups of adjacent ranks that compute at the same time, as
// plan::topology_of_replica() has it. Cores that all ranks share are divided; throws invalid_argument too where they do
// not divide evenly.
Machine machine_of_replica(const Machine& machine, int32_t num_replicas);

// Throws invalid_argument for the first broken rule: as many links as levels, speeds positive, the last level holds all
// ranks, every level's groups make up whole groups of the next one, and at most kMostUniformRanks share cores.
void validate(const Machine& machine);

}  // namespace evenspan::simulate
