// What micro-batches of neighbours take, estimated: many compositions are compared by it, and few are placed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "evenspan/batch/step.h"

namespace evenspan::batch {

// Of a step's documents, longest first: those in [begin, end), and the last `num_short`.
struct Members {
  size_t begin = 0, end = 0;
  size_t num_short = 0;
  friend auto operator<=>(const Members&, const Members&) = default;
};

// Takes ranks as even, and rounds nothing: a document lies on as few ranks as let it be done in the time that all take.
// Such ranks spend their time on costly tokens, and the room that they have left is lost; where memory has less to
// lose, documents lie on more ranks, which have time left for others' tokens.
class Estimates {
 public:
  // REQUIRES: documents are longest first, and one at least; `cost` outlives the estimates.
  Estimates(std::span<const DocumentIndex> documents, std::span<const int64_t> lengths, const Cost& cost);

  size_t num_documents() const { return tokens_.size() - 1; }
  int64_t tokens(const Members& members) const { return sum(tokens_, members); }

  // Of a micro-batch, micro_batch_seconds left out. Binary search over some hundred times that differ by 1 %.
  double seconds(const Members& members) const;

 private:
  // Of the first documents.
  struct Sums {
    double exchange_seconds = 0;  // of all ranks
    double lost_tokens = 0;       // room of their ranks that nobody has time to fill
  };
  // How documents lie where ranks have so much time.
  struct Placement {
    size_t num_too_long = 0;  // the first documents, which no ranks do in this time
    std::vector<Sums> sums;   // [documents + 1], of the first ones; ends with the last that is on more than one rank
  };
  // How far documents are spread, from as few ranks as do it (0) to so many that no room is lost (1).
  static constexpr std::array<double, 3> kSpreads = {0, 0.5, 1};
  struct Deadline {
    double seconds = 0;
    std::array<Placement, kSpreads.size()> placements;  // [spread]
  };

  template <class T>
  static T sum(const std::vector<T>& of_first, const Members& members) {
    return of_first[members.end] - of_first[members.begin] + of_first.back() -
           of_first[of_first.size() - 1 - members.num_short];
  }
  Placement place(double seconds, double spread) const;
  Sums between(const Placement& placement, const Members& members) const;

  const Cost& cost_;
  std::vector<int64_t> tokens_;       // [documents + 1], of the first ones
  std::vector<double> work_seconds_;  // [documents + 1], the same, of all ranks
  std::vector<Deadline> deadlines_;   // the longest first
};

}  // namespace evenspan::batch
