// The rows of every rank's home tensors, read off the placement's spans.
#pragma once

#include <vector>

#include "plan/verify/proof.h"

namespace evenspan::plan::proofs {

class Homes {
 public:
  // Throws Refuted unless the spans hold every token exactly once, sorted and joined. REQUIRES: valid documents.
  Homes(const Documents& documents, const Placement& placement);

  // The row of position rows.begin when `rows` lie in one home span of the rank; -1 otherwise.
  int64_t row_of(int32_t rank, DocumentId document, Span rows) const;

 private:
  const Placement& placement_;
  std::vector<std::vector<int64_t>> first_rows_;  // [rank][span]
};

}  // namespace evenspan::plan::proofs
