// Which segments a partial result is made of, and which it must be made of in the end.
#pragma once

#include <cstdint>
#include <vector>

#include "plan/verify/proof.h"

namespace evenspan::plan::proofs {

// A multiset of segments as the sum of 128 random-looking bits for each, so that union is addition and equality is
// equality, whatever the size. Two different multisets of a plan are equal with probability 2^-128.
struct Contributions {
  uint64_t low = 0;
  uint64_t high = 0;
  int32_t count = 0;

  Contributions& operator+=(const Contributions& other) {
    low += other.low;
    high += other.high;
    count += other.count;
    return *this;
  }
  friend Contributions operator+(Contributions a, const Contributions& b) { return a += b; }
  friend bool operator==(const Contributions&, const Contributions&) = default;
};

// The set of one segment, by its number in segments_of().
Contributions contribution(size_t segment);

// All that contributes to each row and head of one tensor, every document.
class FinishedSets {
 public:
  explicit FinishedSets(int64_t num_documents) : documents_(static_cast<size_t>(num_documents)) {}

  void add(DocumentId document, Span rows, HeadRange heads, const Contributions& part);
  // Ends adding.
  void seal();

  // Where a set that all of `rows` x `heads` hold is not the finished one.
  struct Difference {
    Span rows;
    HeadRange heads;
    Contributions finished;
  };
  // Returns whether `set` is the finished one everywhere; if not and `difference` is not null, where it is not.
  bool is_finished(DocumentId document, Span rows, HeadRange heads, const Contributions& set,
                   Difference* difference = nullptr) const;

 private:
  struct Expected {
    Span rows;
    HeadRange heads;
    Contributions set;
  };
  struct RowBreak {  // from this row to the next step's
    int64_t row;
    Contributions set;
  };
  struct PerDocument {
    std::vector<Expected> parts;
    std::vector<int32_t> head_cuts;              // ascending
    std::vector<std::vector<RowBreak>> columns;  // [head cut], ascending rows, ends with an empty set
  };
  std::vector<PerDocument> documents_;
};

// The finished sets of a plan.
struct Finished {
  explicit Finished(const LoweredPlan& plan);
  // Of output, lse and delta, or of the gradient.
  const FinishedSets& of(TensorName tensor) const {
    return tensor == TensorName::grad_query ? grad_query : is_gradient(tensor) ? grad_key_value : output;
  }

  FinishedSets output;          // of the forward segments
  FinishedSets grad_query;      // of the backward segments
  FinishedSets grad_key_value;  // of the backward segments
};

}  // namespace evenspan::plan::proofs
