#include "evenspan/core/error.h"
#include "run/linear/chunk_block.h"
#include "run/linear/chunked_passes.h"

namespace evenspan::run {
namespace {

class ChunkedKernel : public LinearKernel {
 public:
  explicit ChunkedKernel(int64_t chunk_tokens) : chunk_tokens_(chunk_tokens) {}

  std::unique_ptr<LinearForward> forward(const LinearOperands& operands, const at::Tensor& output) const override {
    check_device(operands);
    return chunked::make_forward(operands, output, chunked::chunk_tokens_for(operands, chunk_tokens_));
  }
  std::unique_ptr<LinearBackward> backward(const LinearOperands& operands, const at::Tensor& grad_output,
                                           const LinearGradients& gradients) const override {
    check_device(operands);
    return chunked::make_backward(operands, grad_output, gradients, chunked::chunk_tokens_for(operands, chunk_tokens_));
  }

 private:
  static void check_device(const LinearOperands& operands) {
    if (operands.query.is_cpu()) return;
    fail(ErrorKind::unsupported, "[linear_attention] the chunked kernel computes on the CPU, the operands are on ",
         operands.query.device(), "; move them or give a LinearKernel of that device");
  }

  int64_t chunk_tokens_;
};

}  // namespace

std::shared_ptr<const LinearKernel> make_chunked_kernel(int64_t chunk_tokens) {
  if (chunk_tokens < 1) fail_invalid("[linear kernel] chunks have ", chunk_tokens, " tokens; give at least 1");
  return std::make_shared<ChunkedKernel>(chunk_tokens);
}

}  // namespace evenspan::run
