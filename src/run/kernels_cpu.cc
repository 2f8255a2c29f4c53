// torch's kernels are chosen by what the processor has, from what its library was built for: its wheels for these
// processors have all of it, and with another choice this unit does not link.
#if defined(__x86_64__)
#define HAVE_AVX2_CPU_DEFINITION
#define HAVE_AVX512_CPU_DEFINITION
#elif defined(__aarch64__)
#define HAVE_SVE_CPU_DEFINITION
#endif
#include <ATen/Parallel.h>
#include <ATen/native/transformers/attention.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <optional>

#include "run/kernel_backends.h"

// The kernels that at::_scaled_dot_product_flash_attention_for_cpu and its backward call after they have allocated
// their results; called directly, they write where the results belong. Layouts: query, key, value [batch, heads, rows,
// dim] in forward, everything else [batch, rows, heads, dim]. The backward kernel adds to its results.

namespace evenspan::run {
namespace {

at::Tensor heads_first(const at::Tensor& x) { return x.transpose(1, 2); }

// Keys or values of 16 bits with the rows of each head together, where many blocks of queries read many of them: rows
// that lie a power of two apart share few sets of the caches. At 4,096 rows of 64 with two kv heads the kernels are 3
// to 5 % faster with the copy than without; below 1,024 rows and with 32 bits they are not.
at::Tensor rows_together(const at::Tensor& x, int64_t num_queries) {
  constexpr int64_t kManyKeys = 1024, kManyQueries = 256;
  if (x.element_size() > 2 || x.size(1) < kManyKeys || num_queries < kManyQueries || x.stride(1) == x.size(3)) return x;
  return heads_first(heads_first(x).contiguous());
}

std::optional<at::Tensor> mask_of(const KernelCall& call) {
  if (!is_masked(call)) return std::nullopt;
  return additive_mask(call);
}

int64_t num_pairs(const KernelCall& call) {
  return call.query.size(0) * call.query.size(1) * call.key.size(1) * call.query.size(2);
}

// The kernel splits one call over threads by tiles, heads and blocks of rows. Calls too small for that run side by side
// instead, one thread each. Below this many pairs a call has about as little to do as starting threads costs.
constexpr int64_t kSmallPairs = int64_t{1} << 18;

template <class Call>
void run_calls(const std::vector<KernelCall>& calls, Call&& run) {
  if (at::get_num_threads() == 1 || calls.size() == 1) {
    for (const KernelCall& call : calls) run(call);
    return;
  }
  std::vector<const KernelCall*> small;
  for (const KernelCall& call : calls) {
    if (num_pairs(call) >= kSmallPairs) {
      run(call);
    } else {
      small.push_back(&call);
    }
  }
  const auto dispatch_keys = c10::impl::tls_local_dispatch_key_set();
  at::parallel_for(0, static_cast<int64_t>(small.size()), 1, [&](int64_t begin, int64_t end) {
    const c10::impl::ForceDispatchKeyGuard guard(dispatch_keys);
    for (int64_t i = begin; i < end; ++i) run(*small[static_cast<size_t>(i)]);
  });
}

}  // namespace

void attend_cpu(const std::vector<KernelCall>& calls) {
  run_calls(calls, [](const KernelCall& call) {
    const int64_t num_queries = call.query.size(1);
    at::native::flash_attention_kernel(at::kCPU, call.output, call.lse, heads_first(call.query),
                                       heads_first(rows_together(call.key, num_queries)),
                                       heads_first(rows_together(call.value, num_queries)), 0.0,
                                       call.kind == plan::TileKind::causal, mask_of(call), std::nullopt);
  });
}

void attend_gradient_cpu(const std::vector<KernelCall>& calls) {
  run_calls(calls, [](const KernelCall& call) {
    const int64_t num_queries = call.query.size(1);
    for (const at::Tensor& gradient : {call.grad_query, call.grad_key, call.grad_value}) gradient.zero_();
    at::native::flash_attention_backward_kernel(at::kCPU, call.grad_query, call.grad_key, call.grad_value,
                                                call.grad_output, call.query, rows_together(call.key, num_queries),
                                                rows_together(call.value, num_queries), call.output, call.lse, 0.0,
                                                call.kind == plan::TileKind::causal, mask_of(call), std::nullopt);
  });
}

}  // namespace evenspan::run
