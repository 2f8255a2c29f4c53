// What a plan is made from.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "evenspan/plan/documents.h"

namespace evenspan::plan {

// Element types of queries, keys and values. Partials and gradients under accumulation are float32, or float64 for f64.
enum class ElementType : uint8_t { bf16, f16, f32, f64 };
int64_t num_bytes(ElementType type);
ElementType accumulation_type(ElementType type);
ElementType parse_element_type(const std::string& text);  // "bf16", "bfloat16", ...; throws invalid_argument
std::string_view to_string(ElementType type);

// What of the map S -> M S + E over a span of a linear recurrence travels as M.
enum class Transition : uint8_t {
  known,     // nothing: M is the identity, or a decay per head that every rank knows
  scalar,    // a number for each head
  diagonal,  // a number for each row of the state
  dense,     // a matrix: delta rules
};
std::string_view to_string(Transition transition);

// The logarithms of decays, at most 0, that a state is multiplied by at each token.
enum class Gate : uint8_t {
  none,     // no decay
  head,     // a number for each head, the same for all tokens
  token,    // a number for each token and head
  channel,  // a number for each token, head and row of the state
};
std::string_view to_string(Gate gate);

// The states of a linear layer, [key_dim, value_dim] for each head, key_dim being the shape's head_dim. Of the
// accumulation type.
struct StateShape {
  int32_t value_dim = 0;  // 0: softmax attention, which has no states
  Gate gate = Gate::none;
  bool delta_rule = false;  // tokens have a beta: A_t = I - beta_t k_t k_t^T, times the decay
  bool initial = false;     // documents start from given states
  bool final = false;       // the states after the documents are results

  // What of a span's map travels.
  Transition transition() const;

  friend bool operator==(const StateShape&, const StateShape&) = default;
};

struct AttentionShape {
  int32_t num_heads = 0;     // query heads, >= 1
  int32_t num_kv_heads = 0;  // >= 1, divides num_heads; of linear attention as many as num_heads
  int32_t head_dim = 0;      // >= 1
  ElementType element = ElementType::bf16;
  StateShape state = {};  // NOLINT(readability-redundant-member-init): of linear attention

  bool is_linear() const { return state.value_dim > 0; }
  int32_t group_size() const { return num_heads / num_kv_heads; }
  // The kv heads that the query heads `heads` use.
  HeadRange kv_heads(HeadRange heads) const {
    return HeadRange{heads.begin / group_size(), (heads.end + group_size() - 1) / group_size()};
  }
  friend bool operator==(const AttentionShape&, const AttentionShape&) = default;
};

// One tier of the machine: groups of `group_size` consecutive ranks that reach each other at this latency and
// bandwidth.
struct Level {
  int32_t group_size = 0;  // ascending over the levels; the last level holds all ranks. The last group may be smaller.
  double latency_seconds = 0;
  double bytes_per_second = 0;  // 0 if unknown
  friend bool operator==(const Level&, const Level&) = default;
};

struct Topology {
  int32_t num_ranks = 0;
  std::vector<Level> levels;  // innermost first, at least one

  int32_t ranks_per_node() const { return levels.front().group_size; }
  // The innermost level of which one group holds both ranks.
  size_t level_between(Rank a, Rank b) const;
  friend bool operator==(const Topology&, const Topology&) = default;
};
// One node of `num_ranks`, or nodes of `ranks_per_node` (0: all ranks on one node). Links have no measured speed.
Topology make_topology(int32_t num_ranks, int32_t ranks_per_node = 0);

// The topology of one of `num_replicas` groups of adjacent ranks, as many in each. Throws invalid_argument unless the
// groups are alike, each inside a group of every level or made up of whole ones; the text names the numbers that serve.
// REQUIRES: num_replicas divides the ranks.
Topology topology_of_replica(const Topology& topology, int32_t num_replicas);

// Work in modelled seconds of one rank: `pair_seconds` for each allowed (query, key) pair of all heads of the whole
// model, `token_seconds` for each token in everything else, forward and backward.
// Default: the 7B model of FlexSP (arXiv 2412.01523, published solver constants): alpha1 = 5.128e-6 ms per token^2 of a
// causal document, which has half as many pairs, and alpha2 = 0.1839576 ms per token.
struct CostModel {
  // Kernels are slower on short documents: a pair of a document of `length` tokens costs `factor` times as much. They
  // work through whole tiles: a document that ends inside one costs as much as if it ended with it.
  struct Slowdown {
    int64_t length = 0;
    double factor = 1;
    friend bool operator==(const Slowdown&, const Slowdown&) = default;
  };

  double pair_seconds = 2 * 5.128e-9;
  double token_seconds = 0.1839576e-3;
  // Ascending lengths, linear between them, constant beyond; empty: 1. Initialised since GCC warns of CostModel{a, b}.
  // Where they are given, they are of whole tiles.
  std::vector<Slowdown> slowdowns = {};  // NOLINT(readability-redundant-member-init)
  int64_t tile = 1;                      // rows of a kernel's tile, >= 1
  double round_seconds = 0;  // of one more round of attention in one layer's forward and backward: its launches
  int32_t num_layers = 32;   // >= 1

  double work(int64_t pairs, int64_t tokens) const {
    return pair_seconds * static_cast<double>(pairs) + token_seconds * static_cast<double>(tokens);
  }
  double slowdown(int64_t length) const;  // of a causal document's pairs
  // Of all heads and the whole model: rows that see all keys. Kernels are about as slow as on a causal document whose
  // rows see as many keys in the mean as the rectangle has rows or keys, whichever are fewer.
  double rectangle_seconds(int64_t rows, int64_t keys) const;
  friend bool operator==(const CostModel&, const CostModel&) = default;

 private:
  int64_t whole_tiles(int64_t length) const { return (length + tile - 1) / tile * tile; }
  double whole_tiles_slowdown(int64_t length) const;
};

// The strategy where none is named: it evens tokens and attention, each for itself, so that no cost model has to be
// right (docs/algorithms.md compares it with others).
constexpr const char* kDefaultStrategy = "mixed";

struct Options {
  std::string strategy = kDefaultStrategy;  // a name of the strategy table
  double token_slack = 0.1;         // a planned placement keeps tokens max/mean at most 1 + token_slack where possible
  int32_t ranks_per_group = 0;      // mixed, hierarchical, usp: ranks of a group; divides num_ranks. 0: the largest
                                    // divisor of num_ranks not above the ranks of a node
  int64_t stripe_tokens = 128;      // striped: tokens of a stripe
  int64_t memory_budget_bytes = 0;  // most bytes of arena and saved operands on a rank; 0: no limit
  friend bool operator==(const Options&, const Options&) = default;
};

struct Request {
  Documents documents;
  AttentionShape shape;
  Topology topology;
  CostModel cost;
  Options options;

  int32_t num_ranks() const { return topology.num_ranks; }
};

// Throws invalid_argument for the first broken rule. Planning calls it.
void validate(const Request& request);

}  // namespace evenspan::plan
