// Documents that are spread over thread ranks: the batches, plans and rows that tests of layers share.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "evenspan/plan/plan.h"

namespace evenspan::test {

inline const std::vector<std::vector<int64_t>> kBatches = {
    {97},                 // one document, over all ranks
    {1, 1, 1, 1, 1},      // of length 1
    {70, 3, 9, 1, 2, 5},  // long-tailed
    {2, 1, 3, 2},         // shorter than a convolution
};

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline const std::vector<int32_t> kRanks = {3};  // some ten times slower
#else
inline const std::vector<int32_t> kRanks = {1, 2, 3, 5, 8};
#endif

// Causal, of two query heads and one kv head of 8.
std::shared_ptr<const plan::Plan> plan_for(const std::vector<int64_t>& lengths, int32_t ranks,
                                           const std::string& strategy, plan::ElementType element,
                                           int32_t ranks_per_node = 0);

// Where the rows of a rank's home stand in the packed batch, [rows].
at::Tensor home_rows(const plan::Plan& plan, Rank rank);

// max |a - b| over max(1, |b|).
double distance(const at::Tensor& a, const at::Tensor& b);

}  // namespace evenspan::test
