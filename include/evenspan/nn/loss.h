// Cross entropy of next tokens without a [rows, vocabulary] tensor.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace evenspan::nn {

constexpr int64_t kNoLabel = -100;

// `scale` times the sum, over the rows with a label, of the cross entropy of softmax(hidden weight^T), a float64
// scalar.
//   hidden [n, width], weight [vocabulary, width] of one floating type; labels [n] int64, kNoLabel or a token.
// The loss of a batch is the sum over its ranks with scale = 1 / labels on all ranks; a batch without labels has loss 0
// with any scale. Log-softmax is in float32 (float64 for float64). Works in tiles of rows and computes the gradients of
// hidden and weight in the same pass, when they are wanted. Throws invalid_argument for a label outside the vocabulary.
at::Tensor tiled_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels,
                               double scale);

}  // namespace evenspan::nn
