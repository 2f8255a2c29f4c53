#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "run/kernel_backends.h"

namespace evenspan::run {
namespace {

double scale_of(const KernelCall& call) { return 1.0 / std::sqrt(static_cast<double>(call.query.size(3))); }

at::ScalarType accumulation_type(at::ScalarType type) { return type == at::kDouble ? at::kDouble : at::kFloat; }

// Matrix products in the accumulation type, for what no flash kernel of the device takes: exact, and as large as the
// tile. Scores [tiles, kv_heads, group, rows, keys].
struct Products {
  explicit Products(const KernelCall& call)
      : type(accumulation_type(call.query.scalar_type())),
        query(grouped(call, call.query)),
        key(call.key.to(type)),
        value(call.value.to(type)) {
    scores = at::einsum("bqhgd,bkhd->bhgqk", {query, key}) * scale_of(call);
    if (is_masked(call)) {
      scores = scores + additive_mask(call).to(type);
    } else if (call.kind == plan::TileKind::causal) {
      KernelCall band = call;
      band.kind = plan::TileKind::band;
      band.first_query = band.first_key = 0;
      band.window = call.query.size(1);
      scores = scores + additive_mask(band).to(type);
    }
  }
  at::Tensor grouped(const KernelCall& call, const at::Tensor& t) const {
    return t.to(type).reshape({t.size(0), t.size(1), call.key.size(2), -1, t.size(3)});
  }
  at::ScalarType type;
  at::Tensor query, key, value, scores;
};

void attend_products(const KernelCall& call) {
  const Products x(call);
  const at::Tensor lse = x.scores.logsumexp(-1);  // [tiles, kv_heads, group, rows]
  const at::Tensor weights = (x.scores - lse.unsqueeze(-1)).exp();
  call.output.copy_(at::einsum("bhgqk,bkhd->bqhgd", {weights, x.value}).reshape(call.output.sizes()));
  call.lse.copy_(lse.permute({0, 3, 1, 2}).reshape(call.lse.sizes()));
}

void attend_gradient_products(const KernelCall& call) {
  const Products x(call);
  const int64_t kv_heads = call.key.size(2);
  const at::Tensor lse =
      call.lse.to(x.type).reshape({call.lse.size(0), call.lse.size(1), kv_heads, -1}).permute({0, 2, 3, 1});
  const at::Tensor weights = (x.scores - lse.unsqueeze(-1)).exp();
  const at::Tensor grad_output = x.grouped(call, call.grad_output);
  const at::Tensor delta = (grad_output * x.grouped(call, call.output)).sum(-1).permute({0, 2, 3, 1});
  const at::Tensor grad_weights = at::einsum("bqhgd,bkhd->bhgqk", {grad_output, x.value});
  const at::Tensor grad_scores = weights * (grad_weights - delta.unsqueeze(-1)) * scale_of(call);
  call.grad_query.copy_(at::einsum("bhgqk,bkhd->bqhgd", {grad_scores, x.key}).reshape(call.query.sizes()));
  call.grad_key.copy_(at::einsum("bhgqk,bqhgd->bkhd", {grad_scores, x.query}));
  call.grad_value.copy_(at::einsum("bhgqk,bqhgd->bkhd", {weights, grad_output}));
}

// The variable-length flash attention of torch takes 16-bit types; its causal mask is aligned at the bottom right,
// which is the same for square calls.
bool takes_flash(const KernelCall& call) {
  const auto type = call.query.scalar_type();
  return call.query.is_cuda() && (type == at::kHalf || type == at::kBFloat16) && call.query.size(3) % 8 == 0 &&
         call.query.size(3) <= 256 && !is_masked(call);
}

// Calls of one kind and head count, packed into one variable-length call.
struct Pack {
  std::vector<size_t> calls;
  at::Tensor query_starts, key_starts;
  int64_t most_queries = 0, most_keys = 0;
};

std::vector<Pack> packs_of(const std::vector<KernelCall>& calls) {
  std::vector<Pack> packs;
  for (size_t i = 0; i < calls.size(); ++i) {
    if (!takes_flash(calls[i])) continue;
    const auto same = [&](const Pack& pack) {
      const KernelCall& first = calls[pack.calls.front()];
      return first.kind == calls[i].kind && first.query.size(2) == calls[i].query.size(2) &&
             first.key.size(2) == calls[i].key.size(2);
    };
    auto pack = std::find_if(packs.begin(), packs.end(), same);
    if (pack == packs.end()) pack = packs.insert(packs.end(), Pack{});
    pack->calls.push_back(i);
  }
  for (Pack& pack : packs) {
    std::vector<int32_t> query_starts{0}, key_starts{0};
    for (const size_t i : pack.calls) {
      const int64_t rows = calls[i].query.size(1), keys = calls[i].key.size(1);
      for (int64_t tile = 0; tile < calls[i].query.size(0); ++tile) {
        query_starts.push_back(query_starts.back() + static_cast<int32_t>(rows));
        key_starts.push_back(key_starts.back() + static_cast<int32_t>(keys));
      }
      pack.most_queries = std::max(pack.most_queries, rows);
      pack.most_keys = std::max(pack.most_keys, keys);
    }
    const at::Device device = calls[pack.calls.front()].query.device();
    pack.query_starts = at::tensor(query_starts, at::kInt).to(device);
    pack.key_starts = at::tensor(key_starts, at::kInt).to(device);
  }
  return packs;
}

// The rows of all tiles, one below the other.
at::Tensor packed(const std::vector<KernelCall>& calls, const Pack& pack, at::Tensor KernelCall::*operand) {
  if (pack.calls.size() == 1) return (calls[pack.calls[0]].*operand).flatten(0, 1).contiguous();
  std::vector<at::Tensor> parts;
  for (const size_t i : pack.calls) parts.push_back((calls[i].*operand).flatten(0, 1));
  return at::cat(parts);
}

void unpack(const std::vector<KernelCall>& calls, const Pack& pack, const at::Tensor& rows,
            at::Tensor KernelCall::*result) {
  int64_t row = 0;
  for (const size_t i : pack.calls) {
    const at::Tensor& to = calls[i].*result;
    const int64_t count = to.size(0) * to.size(1);
    to.copy_(rows.narrow(0, row, count).view(to.sizes()));
    row += count;
  }
}

}  // namespace

void attend_device(const std::vector<KernelCall>& calls) {
  for (const Pack& pack : packs_of(calls)) {
    const auto [output, lse, seed, unused, debug] = at::_flash_attention_forward(
        packed(calls, pack, &KernelCall::query), packed(calls, pack, &KernelCall::key),
        packed(calls, pack, &KernelCall::value), pack.query_starts, pack.key_starts, pack.most_queries, pack.most_keys,
        0.0, calls[pack.calls[0]].kind == plan::TileKind::causal, false);
    unpack(calls, pack, output, &KernelCall::output);
    unpack(calls, pack, lse.transpose(0, 1).contiguous(), &KernelCall::lse);  // it is [heads, all rows]
  }
  for (const KernelCall& call : calls) {
    if (!takes_flash(call)) attend_products(call);
  }
}

void attend_gradient_device(const std::vector<KernelCall>& calls) {
  for (const Pack& pack : packs_of(calls)) {
    const at::Tensor query = packed(calls, pack, &KernelCall::query);
    const at::Tensor no_dropout = at::zeros({2}, query.options().dtype(at::kUInt64));
    const auto [grad_query, grad_key, grad_value] = at::_flash_attention_backward(
        packed(calls, pack, &KernelCall::grad_output), query, packed(calls, pack, &KernelCall::key),
        packed(calls, pack, &KernelCall::value), packed(calls, pack, &KernelCall::output),
        packed(calls, pack, &KernelCall::lse).transpose(0, 1).contiguous(), pack.query_starts, pack.key_starts,
        pack.most_queries, pack.most_keys, 0.0, calls[pack.calls[0]].kind == plan::TileKind::causal, no_dropout,
        no_dropout);
    unpack(calls, pack, grad_query, &KernelCall::grad_query);
    unpack(calls, pack, grad_key, &KernelCall::grad_key);
    unpack(calls, pack, grad_value, &KernelCall::grad_value);
  }
  for (const KernelCall& call : calls) {
    if (!takes_flash(call)) attend_gradient_products(call);
  }
}

}  // namespace evenspan::run
