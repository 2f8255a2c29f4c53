// Steps of few documents: their micro-batches need not be of neighbours in length, since all ways to divide the
// documents can be looked at.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "batch/pour.h"
#include "evenspan/batch/step.h"

namespace evenspan::batch {

// Sets of documents are masks of their places in `lengths`, the longest first. Which of two equal documents a set has
// is the same: [set] has as many of each length, and of these the first.
std::vector<size_t> standard_sets(std::span<const int64_t> lengths);

// The best plan found among all ways to divide the documents, longest first, into micro-batches that are poured
// (pour.h); empty where none found takes less than `most_seconds`. A set of documents takes at least lower_bound()'s
// time until it is poured. The way that is best by what is known of its sets is poured next, until it is hardly better
// than the best plan, or kRounds ways were. REQUIRES: at most kFewDocuments documents.
StepPlan divide_few(std::span<const DocumentIndex> documents, std::span<const int64_t> lengths, const Cost& cost,
                    double most_seconds);

}  // namespace evenspan::batch
