#include <ATen/Context.h>
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

double scale_of(const KernelCall& call) { return 1.0 / std::sqrt(static_cast<double>(call.query.size(2))); }

at::ScalarType accumulation_type(at::ScalarType type) { return type == at::kDouble ? at::kDouble : at::kFloat; }

// Matrix products in the accumulation type, for what no flash kernel of the device takes: exact, and as large as the
// tile. Scores [kv_heads, group, rows, keys].
struct Products {
  explicit Products(const KernelCall& call)
      : type(accumulation_type(call.query.scalar_type())),
        kv_heads(call.key.size(1)),
        query(call.query.to(type).reshape({call.query.size(0), kv_heads, -1, call.query.size(2)})),
        key(call.key.to(type)),
        value(call.value.to(type)) {
    scores = at::einsum("qhgd,khd->hgqk", {query, key}) * scale_of(call);
    if (is_masked(call)) {
      scores = scores + additive_mask(call).to(type);
    } else if (call.kind == plan::TileKind::causal) {
      KernelCall band = call;
      band.kind = plan::TileKind::band;
      band.first_query = band.first_key = 0;
      band.window = call.query.size(0);
      scores = scores + additive_mask(band).to(type);
    }
  }
  at::ScalarType type;
  int64_t kv_heads;
  at::Tensor query, key, value, scores;
};

KernelResult attend_products(const KernelCall& call) {
  const Products x(call);
  const at::Tensor lse = x.scores.logsumexp(-1);  // [kv_heads, group, rows]
  const at::Tensor weights = (x.scores - lse.unsqueeze(-1)).exp();
  const at::Tensor output = at::einsum("hgqk,khd->qhgd", {weights, x.value});
  return {output.reshape(call.query.sizes()).to(call.query.scalar_type()),
          lse.permute({2, 0, 1}).reshape({call.query.size(0), call.query.size(1)})};
}

KernelGradients attend_gradient_products(const KernelCall& call) {
  const Products x(call);
  const auto grouped = [&](const at::Tensor& t) {
    return t.to(x.type).reshape({call.query.size(0), x.kv_heads, -1, call.query.size(2)});
  };
  const at::Tensor lse = call.lse.to(x.type).reshape({call.query.size(0), x.kv_heads, -1}).permute({1, 2, 0});
  const at::Tensor weights = (x.scores - lse.unsqueeze(-1)).exp();
  const at::Tensor grad_output = grouped(call.grad_output);
  const at::Tensor delta = (grad_output * grouped(call.output)).sum(-1).permute({1, 2, 0});  // [kv_heads, group, rows]
  const at::Tensor grad_weights = at::einsum("qhgd,khd->hgqk", {grad_output, x.value});
  const at::Tensor grad_scores = weights * (grad_weights - delta.unsqueeze(-1)) * scale_of(call);
  const auto type = call.query.scalar_type();
  return {at::einsum("hgqk,khd->qhgd", {grad_scores, x.key}).reshape(call.query.sizes()).to(type),
          at::einsum("hgqk,qhgd->khd", {grad_scores, x.query}).to(type),
          at::einsum("hgqk,qhgd->khd", {weights, grad_output}).to(type)};
}

// The variable-length flash attention of torch takes 16-bit types; its causal mask is aligned at the bottom right,
// which is the same for square calls.
bool takes_flash(const KernelCall& call) {
  const auto type = call.query.scalar_type();
  return call.query.is_cuda() && (type == at::kHalf || type == at::kBFloat16) && call.query.size(2) % 8 == 0 &&
         call.query.size(2) <= 256 && !is_masked(call);
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
      return first.kind == calls[i].kind && first.query.size(1) == calls[i].query.size(1) &&
             first.key.size(1) == calls[i].key.size(1);
    };
    auto pack = std::find_if(packs.begin(), packs.end(), same);
    if (pack == packs.end()) pack = packs.insert(packs.end(), Pack{});
    pack->calls.push_back(i);
  }
  for (Pack& pack : packs) {
    std::vector<int32_t> query_starts{0}, key_starts{0};
    for (const size_t i : pack.calls) {
      const int64_t rows = calls[i].query.size(0), keys = calls[i].key.size(0);
      query_starts.push_back(query_starts.back() + static_cast<int32_t>(rows));
      key_starts.push_back(key_starts.back() + static_cast<int32_t>(keys));
      pack.most_queries = std::max(pack.most_queries, rows);
      pack.most_keys = std::max(pack.most_keys, keys);
    }
    const at::Device device = calls[pack.calls.front()].query.device();
    pack.query_starts = at::tensor(query_starts, at::kInt).to(device);
    pack.key_starts = at::tensor(key_starts, at::kInt).to(device);
  }
  return packs;
}

at::Tensor packed(const std::vector<KernelCall>& calls, const Pack& pack, at::Tensor KernelCall::*operand) {
  if (pack.calls.size() == 1) return (calls[pack.calls[0]].*operand).contiguous();
  std::vector<at::Tensor> parts;
  for (const size_t i : pack.calls) parts.push_back(calls[i].*operand);
  return at::cat(parts);
}

}  // namespace

std::vector<KernelResult> attend_device(const std::vector<KernelCall>& calls) {
  std::vector<KernelResult> results(calls.size());
  for (const Pack& pack : packs_of(calls)) {
    const auto [output, lse, seed, unused, debug] = at::_flash_attention_forward(
        packed(calls, pack, &KernelCall::query), packed(calls, pack, &KernelCall::key),
        packed(calls, pack, &KernelCall::value), pack.query_starts, pack.key_starts, pack.most_queries, pack.most_keys,
        0.0, calls[pack.calls[0]].kind == plan::TileKind::causal, false);
    int64_t row = 0;
    for (const size_t i : pack.calls) {
      const int64_t rows = calls[i].query.size(0);
      // lse is [heads, all rows]
      results[i] = {output.narrow(0, row, rows), lse.narrow(-1, row, rows).transpose(0, 1)};
      row += rows;
    }
  }
  for (size_t i = 0; i < calls.size(); ++i) {
    if (!takes_flash(calls[i])) results[i] = attend_products(calls[i]);
  }
  return results;
}

std::vector<KernelGradients> attend_gradient_device(const std::vector<KernelCall>& calls) {
  std::vector<KernelGradients> results(calls.size());
  for (const Pack& pack : packs_of(calls)) {
    const at::Tensor query = packed(calls, pack, &KernelCall::query);
    const at::Tensor no_dropout = at::zeros({2}, query.options().dtype(at::kUInt64));
    const auto [grad_query, grad_key, grad_value] = at::_flash_attention_backward(
        packed(calls, pack, &KernelCall::grad_output), query, packed(calls, pack, &KernelCall::key),
        packed(calls, pack, &KernelCall::value), packed(calls, pack, &KernelCall::output),
        packed(calls, pack, &KernelCall::lse).transpose(0, 1).contiguous(), pack.query_starts, pack.key_starts,
        pack.most_queries, pack.most_keys, 0.0, calls[pack.calls[0]].kind == plan::TileKind::causal, no_dropout,
        no_dropout);
    int64_t row = 0, key_row = 0;
    for (const size_t i : pack.calls) {
      const int64_t rows = calls[i].query.size(0), keys = calls[i].key.size(0);
      results[i] = {grad_query.narrow(0, row, rows), grad_key.narrow(0, key_row, keys),
                    grad_value.narrow(0, key_row, keys)};
      row += rows;
      key_row += keys;
    }
  }
  for (size_t i = 0; i < calls.size(); ++i) {
    if (!takes_flash(calls[i])) results[i] = attend_gradient_products(calls[i]);
  }
  return results;
}

}  // namespace evenspan::run
