#include "support/torch/documents_on_ranks.h"

#include <ATen/ATen.h>

namespace evenspan::test {

std::shared_ptr<const plan::Plan> plan_for(const std::vector<int64_t>& lengths, int32_t ranks,
                                           const std::string& strategy, plan::ElementType element,
                                           int32_t ranks_per_node) {
  plan::Request request;
  request.documents = plan::Documents(lengths, plan::Mask{});
  request.shape = {2, 1, 8, element, {}};
  request.topology = plan::make_topology(ranks, ranks_per_node);
  request.options.strategy = strategy;
  return plan::make_plan(std::move(request));
}

at::Tensor home_rows(const plan::Plan& plan, Rank rank) {
  std::vector<int64_t> starts{0};
  for (const plan::Document& document : plan.request.documents.all()) starts.push_back(starts.back() + document.length);
  std::vector<at::Tensor> rows{at::empty({0}, at::kLong)};
  for (const auto& [document, span] : plan.placement.spans(rank)) {
    const int64_t start = starts[static_cast<size_t>(document.value)];
    rows.push_back(at::arange(start + span.begin, start + span.end, at::kLong));
  }
  return at::cat(rows);
}

double distance(const at::Tensor& a, const at::Tensor& b) {
  if (b.numel() == 0) return 0;
  const at::Tensor scale = b.to(at::kDouble).abs().max().clamp_min(1.0);
  return ((a.to(at::kDouble) - b.to(at::kDouble)).abs().max() / scale).item<double>();
}

}  // namespace evenspan::test
