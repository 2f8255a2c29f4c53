// The placement of one micro-batch: documents whole on ranks where they fit, cut over few ranks of a node where that
// evens them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "evenspan/batch/step.h"

namespace evenspan::batch {

struct Poured {
  MicroBatch batch;
  double seconds = 0;  // of the slowest rank, micro_batch_seconds left out
};

// Of no more documents, more ways are tried.
constexpr size_t kFewDocuments = 12;

// In how many ways ranks are chosen: those that are mostly best, while micro-batches are still compared, or all.
enum class Effort : uint8_t { quick, thorough };

// Seconds of a micro-batch, micro_batch_seconds left out.
struct SecondsTried {
  double first = 0;  // where the search begins; no less than the mean of the ranks is tried
  double most = 0;
};

// The least seconds found for these documents, longest first; nothing where no way tried kept memory and took less than
// `seconds.most`.
std::optional<Poured> pour(std::span<const DocumentIndex> documents, std::span<const int64_t> lengths, const Cost& cost,
                           SecondsTried seconds, Effort effort);

}  // namespace evenspan::batch
