// Documents as the global batches of training steps.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/options.h"

namespace evenspan::cli {

struct GlobalBatchArguments {
  int64_t documents = 0;  // of a global batch; 0: all
  int64_t tokens = 0;     // at most, of a global batch; 0: all
  int64_t first_step = 0;
  int64_t num_steps = 0;  // 0: all from the first one on
};

// --global-batch-documents, --global-batch-tokens, --first-step and --num-steps.
void declare_global_batches(Options* options, GlobalBatchArguments* arguments);
// Throws for what contradicts itself, has no effect or cannot be.
void check_global_batches(const Options& options, const GlobalBatchArguments& arguments);

struct GlobalBatch {
  int64_t step = 0;            // its number, from 0 on
  int64_t first_document = 0;  // of its documents, which are neighbours: its number in the file
  std::vector<int64_t> lengths;
};

struct GlobalBatches {
  std::vector<GlobalBatch> chosen;
  int64_t num_steps = 0;           // of the file
  int64_t num_left_documents = 0;  // at the end of the file, which fill no global batch
  std::string unit;                // "512 documents", "at most 1,000,000 tokens"; empty: all is one global batch
};

// Documents in their order. A global batch of tokens ends before the document that would take it beyond their number.
// What is left at the end and fills no global batch is left out, unless it is all there is. Throws invalid_argument for
// a document that no global batch holds and for steps that there are not. REQUIRES: lengths are positive.
GlobalBatches cut_global_batches(const GlobalBatchArguments& arguments, const std::vector<int64_t>& lengths);

}  // namespace evenspan::cli
