// Which documents go together: ways to divide a step's documents into micro-batches, by what these are estimated to
// take.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "batch/estimates.h"

namespace evenspan::batch {

// Micro-batches of neighbours among the documents, longest first; the first may take some of the shortest along.
using Composition = std::vector<Members>;

class Composer {
 public:
  // REQUIRES: both outlive the composer. There are places to end a micro-batch at for up to `most_batches`.
  Composer(const Estimates& estimates, const Cost& cost, int64_t most_batches);

  // Of so many micro-batches: those with the least sum of estimates for several numbers of short documents in the first
  // one and several fillings of memory. Empty: memory is too small.
  std::vector<Composition> compositions(int64_t num_batches);

 private:
  // Documents from the place `last` on go with the first micro-batch; none has more than `most_tokens`. Nothing: there
  // is no such composition.
  std::optional<Composition> compose(int64_t num_batches, size_t last, double most_tokens);
  double estimate(size_t from, size_t to);  // of the documents between two places

  const Estimates& estimates_;
  double cluster_tokens_;
  std::vector<size_t> places_;   // numbers of documents, ascending: none and all of them, and some between
  std::vector<double> seconds_;  // [place][place], below 0: unknown
};

}  // namespace evenspan::batch
