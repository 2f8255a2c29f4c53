// torch's kernels are chosen by what the processor has, from what its library was built for: its wheels for these
// processors have all of it, and with another choice this unit does not link.
#if defined(__x86_64__)
#define HAVE_AVX2_CPU_DEFINITION
#define HAVE_AVX512_CPU_DEFINITION
#elif defined(__aarch64__)
#define HAVE_SVE_CPU_DEFINITION
#endif
#include <ATen/Parallel.h>
#include <ATen/cpu/Utils.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/ops/empty.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "run/causal_pieces.h"
#include "run/kernel_backends.h"
#include "run/partials.h"
#include "run/view.h"

// The kernels that at::_scaled_dot_product_flash_attention_for_cpu and its backward call after they have allocated
// their results; called directly, they write where the results belong. Layouts: query, key, value [batch, heads, rows,
// dim] in forward, everything else [batch, rows, heads, dim]. The backward kernel adds to its results.
//
// They are called so that they compute little that nobody needs and in the type that they are fastest in:
// - A causal call computes blocks of up to 256 rows by 512 keys, those on the diagonal in full: 256 keys a row more
// than
//   needed, for a document of 512 rows as many as needed. In 32 bits and more, causal squares are cut into small ones
//   and rectangles (causal_pieces.h); forward merges their outputs, backward adds up by itself.
// - Each of a 16-bit kernel's products costs a call of a library, which for short tiles takes longer than the product,
//   and where the processor has no arithmetic of that type, every product is slow. Those tiles are copied to 32 bits.

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

constexpr std::array kOfQueries = {&KernelCall::query, &KernelCall::output, &KernelCall::lse, &KernelCall::grad_output,
                                   &KernelCall::grad_query};
constexpr std::array kOfKeys = {&KernelCall::key, &KernelCall::value, &KernelCall::grad_key, &KernelCall::grad_value};

// The call on parts of its operands: of those along queries and of those along keys.
template <class PartOfQueries, class PartOfKeys>
KernelCall part_of(const KernelCall& call, PartOfQueries&& of_queries, PartOfKeys&& of_keys) {
  KernelCall part = call;
  for (const auto field : kOfQueries) {
    if ((call.*field).defined()) part.*field = of_queries(call.*field);
  }
  for (const auto field : kOfKeys) {
    if ((call.*field).defined()) part.*field = of_keys(call.*field);
  }
  return part;
}

int64_t leaf_rows(int64_t rows) { return rows <= 1024 ? 64 : 128; }

bool is_cut(const KernelCall& call) {
  return call.kind == plan::TileKind::causal && call.query.element_size() > 2 &&
         call.query.size(1) > leaf_rows(call.query.size(1));
}

// Runs the calls for the pieces of a causal call: for each tile with all pieces that are alike, or for each piece of
// all tiles, whichever are fewer.
template <class Run>
void for_pieces(const KernelCall& call, Run&& run) {
  const int64_t tiles = call.query.size(0);
  for (const CausalPieces& pieces : causal_pieces(call.query.size(1), leaf_rows(call.query.size(1)))) {
    const bool by_tile = tiles <= pieces.count;
    for (int64_t i = 0; i < std::min(tiles, pieces.count); ++i) {
      const auto rows_of = [&](Span rows) {
        return [&, rows](const at::Tensor& x) {
          const int64_t first = x.storage_offset() + rows.begin * x.stride(1), step = pieces.step * x.stride(1);
          return by_tile ? view_tiles(x, first + i * x.stride(0), pieces.count, step, rows.size())
                         : view_tiles(x, first + i * step, tiles, x.stride(0), rows.size());
        };
      };
      KernelCall piece = part_of(call, rows_of(pieces.queries), rows_of(pieces.keys));
      if (!pieces.causal()) piece.kind = plan::TileKind::full;
      run(std::move(piece));
    }
  }
}

void attend_blocks(const KernelCall& call) {
  const int64_t num_queries = call.query.size(1);
  at::native::flash_attention_kernel(at::kCPU, call.output, call.lse, heads_first(call.query),
                                     heads_first(rows_together(call.key, num_queries)),
                                     heads_first(rows_together(call.value, num_queries)), 0.0,
                                     call.kind == plan::TileKind::causal, mask_of(call), std::nullopt);
}

void attend_call(const KernelCall& call) {
  if (!is_cut(call)) return attend_blocks(call);
  for_pieces(call, [](KernelCall piece) {
    if (piece.kind == plan::TileKind::causal) return attend_blocks(piece);
    const at::Tensor output = std::exchange(piece.output, at::empty(piece.output.sizes(), piece.output.options()));
    const at::Tensor lse = std::exchange(piece.lse, at::empty(piece.lse.sizes(), piece.lse.options()));
    attend_blocks(piece);
    merge_partials(output, lse, piece.output, piece.lse);
  });
}

void add_gradient_of_blocks(const KernelCall& call) {
  const int64_t num_queries = call.query.size(1);
  at::native::flash_attention_backward_kernel(at::kCPU, call.grad_query, call.grad_key, call.grad_value,
                                              call.grad_output, call.query, rows_together(call.key, num_queries),
                                              rows_together(call.value, num_queries), call.output, call.lse, 0.0,
                                              call.kind == plan::TileKind::causal, mask_of(call), std::nullopt);
}

void attend_gradient_call(const KernelCall& call) {
  for (const at::Tensor& gradient : {call.grad_query, call.grad_key, call.grad_value}) gradient.zero_();
  is_cut(call) ? for_pieces(call, add_gradient_of_blocks) : add_gradient_of_blocks(call);
}

bool processor_has(const char* capability) {
  static const auto capabilities = at::cpu::get_cpu_capabilities();
  const auto found = capabilities.find(capability);
  return found != capabilities.end() && found->second.isBool() && found->second.toBool();
}

bool is_widened(const KernelCall& call) {
  // Up to so many rows and keys a processor without a matrix unit is no slower in 32 bits.
  constexpr int64_t kForwardCausal = 4096, kBackwardCausal = 1024, kFull = 256;
  static const bool half_is_slow = !processor_has("avx512_fp16") && !processor_has("amx_fp16");
  static const bool has_matrix_unit = processor_has("amx_bf16");
  if (call.query.scalar_type() == at::kHalf) return half_is_slow;
  if (call.query.scalar_type() != at::kBFloat16 || has_matrix_unit) return false;
  const int64_t causal = call.grad_output.defined() ? kBackwardCausal : kForwardCausal;
  return std::max(call.query.size(1), call.key.size(1)) <= (call.kind == plan::TileKind::causal ? causal : kFull);
}

// Some tiles and kv heads, with the query heads of their groups.
KernelCall slice_of(const KernelCall& call, Span tiles, Span kv_heads) {
  const auto slice = [&](int64_t heads_each) {
    return [&, heads_each](const at::Tensor& x) {
      return x.narrow(0, tiles.begin, tiles.size())
          .narrow(2, kv_heads.begin * heads_each, kv_heads.size() * heads_each);
    };
  };
  return part_of(call, slice(call.query.size(2) / call.key.size(2)), slice(1));
}

// Runs the call in 32 bits on copies of what it reads, and copies back what it writes, some tiles and kv heads at a
// time: as many as the caches hold, but enough heads for all threads.
template <class Reads, class Writes, class Run>
void run_widened(const KernelCall& call, const Reads& reads, const Writes& writes, Run&& run) {
  constexpr int64_t kElementsOfAThread = int64_t{1} << 18;
  const int64_t tiles = call.query.size(0), kv_heads = call.key.size(2), group = call.query.size(2) / kv_heads;
  const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  const int64_t elements = call.query.numel() / (tiles * kv_heads);
  const int64_t at_once =
      std::max({kElementsOfAThread * threads / elements, (threads + group - 1) / group, int64_t{1}});
  const int64_t tiles_at_once = std::max(at_once / kv_heads, int64_t{1});
  for (int64_t tile = 0; tile < tiles; tile += tiles_at_once) {
    for (int64_t head = 0; head < kv_heads; head += at_once) {
      const KernelCall part = slice_of(call, Span{tile, std::min(tile + tiles_at_once, tiles)},
                                       Span{head, std::min(head + at_once, kv_heads)});
      KernelCall wide = part;
      for (const auto field : reads) wide.*field = (part.*field).to(at::kFloat);
      for (const auto field : writes) wide.*field = at::empty((part.*field).sizes(), wide.query.options());
      run(wide);
      for (const auto field : writes) (part.*field).copy_(wide.*field);
    }
  }
}

int64_t num_pairs(const KernelCall& call) {
  return call.query.size(0) * call.query.size(1) * call.key.size(1) * call.query.size(2);
}

// Below this many pairs a call has about as little to do as starting threads costs.
constexpr int64_t kSmallPairs = int64_t{1} << 18;

// Calls that are small run side by side, one thread each, and so do the tiles and kv heads of a call that has enough of
// them for all threads; the kernel splits any other call over threads by tiles, heads and blocks of rows.
template <class Call>
void run_calls(const std::vector<KernelCall>& calls, Call&& run) {
  const int64_t threads = at::get_num_threads();
  if (threads == 1) {
    for (const KernelCall& call : calls) run(call);
    return;
  }
  const auto dispatch_keys = c10::impl::tls_local_dispatch_key_set();
  const auto run_each = [&](int64_t count, auto&& run_one) {
    at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      const c10::impl::ForceDispatchKeyGuard guard(dispatch_keys);
      for (int64_t i = begin; i < end; ++i) run_one(i);
    });
  };
  std::vector<const KernelCall*> small;
  for (const KernelCall& call : calls) {
    const int64_t tiles = call.query.size(0), kv_heads = call.key.size(2), enough = 8 * threads;
    const int64_t tile_parts = std::min(tiles, enough), head_parts = tile_parts == enough ? 1 : kv_heads;
    const int64_t parts = tile_parts * head_parts;
    if (num_pairs(call) < kSmallPairs) {
      small.push_back(&call);
    } else if (parts % threads == 0 || parts >= enough) {
      run_each(parts, [&](int64_t i) {
        run(slice_of(call, equal_part(tiles, i / head_parts, tile_parts),
                     equal_part(kv_heads, i % head_parts, head_parts)));
      });
    } else {
      run(call);
    }
  }
  run_each(static_cast<int64_t>(small.size()), [&](int64_t i) { run(*small[static_cast<size_t>(i)]); });
}

}  // namespace

void attend_cpu(const std::vector<KernelCall>& calls) {
  constexpr std::array reads = {&KernelCall::query, &KernelCall::key, &KernelCall::value};
  constexpr std::array writes = {&KernelCall::output};
  run_calls(calls, [&](const KernelCall& call) {
    is_widened(call) ? run_widened(call, reads, writes, attend_call) : attend_call(call);
  });
}

void attend_gradient_cpu(const std::vector<KernelCall>& calls) {
  constexpr std::array reads = {&KernelCall::query, &KernelCall::key, &KernelCall::value, &KernelCall::output,
                                &KernelCall::grad_output};
  constexpr std::array writes = {&KernelCall::grad_query, &KernelCall::grad_key, &KernelCall::grad_value};
  run_calls(calls, [&](const KernelCall& call) {
    is_widened(call) ? run_widened(call, reads, writes, attend_gradient_call) : attend_gradient_call(call);
  });
}

}  // namespace evenspan::run
