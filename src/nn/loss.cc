#include "evenspan/nn/loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "evenspan/core/error.h"
#include "evenspan/nn/decoder.h"

namespace evenspan::nn {
namespace {

constexpr int64_t kTileElements = int64_t{1} << 21;  // of the float32 logits that live at a time: 8 MiB

struct Tiled {
  double loss = 0;
  at::Tensor grad_hidden, grad_weight;  // undefined unless wanted; grad_weight in the accumulation type
};

Tiled compute(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels, double scale,
              bool want_gradients) {
  const int64_t num_rows = hidden.size(0);
  const int64_t vocabulary = weight.size(0);
  const at::ScalarType type = hidden.scalar_type();
  const at::ScalarType wide = accumulation_type(type);
  Tiled out;
  if (want_gradients) {
    out.grad_hidden = at::empty_like(hidden);
    out.grad_weight = at::zeros(weight.sizes(), weight.options().dtype(wide));
  }
  const int64_t rows_per_tile = std::max<int64_t>(16, kTileElements / vocabulary);
  for (int64_t begin = 0; begin < num_rows; begin += rows_per_tile) {
    const int64_t rows = std::min(rows_per_tile, num_rows - begin);
    const at::Tensor x = hidden.narrow(0, begin, rows);
    const at::Tensor label = labels.narrow(0, begin, rows).unsqueeze(1);
    const at::Tensor counted = label.ne(kNoLabel);
    const at::Tensor target = label.clamp_min(0);
    at::Tensor log_p = at::log_softmax(at::linear(x, weight).to(wide), -1);
    out.loss -= scale * log_p.gather(1, target).to(at::kDouble).mul_(counted).sum().item<double>();
    if (!want_gradients) continue;
    // d loss / d logits = scale (softmax - one-hot), 0 in rows without a label.
    at::Tensor grad = log_p.exp_();
    grad.scatter_add_(1, target, at::empty_like(target, grad.options()).fill_(-1));
    grad.mul_(counted.to(wide).mul_(scale));
    const at::Tensor narrow = grad.to(type);
    out.grad_hidden.narrow(0, begin, rows).copy_(narrow.matmul(weight));
    if (type == wide) {
      out.grad_weight.addmm_(narrow.t(), x);
    } else {
      out.grad_weight.add_(narrow.t().matmul(x));
    }
  }
  return out;
}

class TiledCrossEntropy : public torch::autograd::Function<TiledCrossEntropy> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& hidden,
                            const at::Tensor& weight, const at::Tensor& labels, double scale) {
    Tiled result = compute(hidden, weight, labels, scale, /*want_gradients=*/true);
    context->save_for_backward({result.grad_hidden, result.grad_weight.to(weight.scalar_type())});
    return at::empty({}, hidden.options().dtype(at::kDouble)).fill_(result.loss);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grad) {
    const auto saved = context->get_saved_variables();
    const double factor = grad[0].item<double>();
    return {saved[0] * factor, saved[1] * factor, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor tiled_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels,
                               double scale) {
  if (hidden.dim() != 2 || weight.dim() != 2 || labels.dim() != 1 || hidden.size(1) != weight.size(1) ||
      hidden.size(0) != labels.size(0) || labels.scalar_type() != at::kLong ||
      hidden.scalar_type() != weight.scalar_type()) {
    fail_invalid(
        "[cross entropy] hidden [n, width], weight [vocabulary, width] of one type and int64 labels [n] are needed; "
        "they are ",
        hidden.scalar_type(), hidden.sizes(), ", ", weight.scalar_type(), weight.sizes(), " and ", labels.scalar_type(),
        labels.sizes());
  }
  const at::Tensor outside = labels.ne(kNoLabel).logical_and(labels.lt(0).logical_or(labels.ge(weight.size(0))));
  if (labels.numel() > 0 && outside.any().item<bool>()) {
    fail_invalid("[cross entropy] labels are ", kNoLabel, " or in [0, ", weight.size(0), "), one of them is ",
                 labels.masked_select(outside)[0].item<int64_t>());
  }
  if (c10::GradMode::is_enabled() && (hidden.requires_grad() || weight.requires_grad())) {
    return TiledCrossEntropy::apply(hidden, weight, labels, scale);
  }
  return at::empty({}, hidden.options().dtype(at::kDouble))
      .fill_(compute(hidden, weight, labels, scale, /*want_gradients=*/false).loss);
}

}  // namespace evenspan::nn
