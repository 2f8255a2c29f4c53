#include "support/torch/naive_recurrence.h"

#include <ATen/ATen.h>

namespace evenspan::test {

std::pair<at::Tensor, at::Tensor> naive_recurrence(const at::Tensor& query, const at::Tensor& key,
                                                   const at::Tensor& value, const at::Tensor& gate,
                                                   const at::Tensor& beta, double scale,
                                                   const at::Tensor& initial_state) {
  const int64_t n = query.size(0), heads = query.size(1);
  at::Tensor state =
      initial_state.defined() ? initial_state : at::zeros({heads, query.size(2), value.size(2)}, value.options());
  std::vector<at::Tensor> outputs;
  for (int64_t t = 0; t < n; ++t) {
    const at::Tensor k = key[t].unsqueeze(2), v = value[t].unsqueeze(1);  // [heads, key_dim, 1], [heads, 1, value_dim]
    if (gate.defined()) state = state * (gate.dim() == 1 ? gate : gate[t]).exp().reshape({heads, -1, 1});
    if (beta.defined()) {
      state = state + beta[t].view({heads, 1, 1}) * (k * (v - at::matmul(k.transpose(1, 2), state)));
    } else {
      state = state + k * v;
    }
    outputs.push_back(scale * at::matmul(query[t].unsqueeze(1), state).squeeze(1));
  }
  return {at::stack(outputs), state};
}

}  // namespace evenspan::test
