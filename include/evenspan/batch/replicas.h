// A step's documents divided over replicas of a model: groups of ranks that each hold all of it, cut their part into
// micro-batches of their own, and wait for each other at the step's end alone.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace evenspan::batch {

// [replica]: documents of the step, ascending; each document is in one, and a replica may have none.
using ReplicaParts = std::vector<std::vector<int64_t>>;

// Documents go, that of the greatest weight first, to the replica with the least sum of weights; of equals the first.
ReplicaParts divide_over_replicas(std::span<const double> weights, int32_t num_replicas);

// What a replica takes with these documents, which are not empty.
using SecondsOf = std::function<double(const std::vector<int64_t>& documents)>;

// Moves a document from the slowest replica to another, or exchanges it for a lighter one, while that makes the slower
// of the two faster than the slowest was; documents are chosen by their weights, which are about what `seconds` gains
// and loses by them. Stops where none of a few choices helps, or after `tries` of them. Deterministic.
void even_out(std::span<const double> weights, const SecondsOf& seconds, int tries, ReplicaParts* parts);

}  // namespace evenspan::batch
