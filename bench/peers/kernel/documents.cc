#include "documents.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <limits>
#include <utility>

#include "run/kernels.h"
#include "run/partials.h"
#include "run/view.h"

namespace evenspan::bench {
namespace {

std::atomic<int64_t> forward_pairs{0}, backward_pairs{0};

// Rows of successive documents of one length: `count` tiles of `rows` rows, `step` rows apart.
struct Rows {
  int64_t first, step, rows;
};

// What one kernel call takes. `added`: its result joins that of an earlier piece on the same queries.
struct Piece {
  int64_t count;
  Rows query, key;
  bool causal, added;
};

struct Pieces {
  std::vector<Piece> calls;
  std::vector<Rows> queries_alone, keys_alone;  // rows that meet nothing
};

Pieces pieces_of(const Documents& documents) {
  Pieces result;
  const size_t size = documents.queries.size() - 1;
  const auto queries = [&](size_t i) { return documents.queries[i + 1] - documents.queries[i]; };
  const auto keys = [&](size_t i) { return documents.keys[i + 1] - documents.keys[i]; };
  for (size_t i = 0, end = 0; i < size; i = end) {
    for (end = i + 1; end < size && queries(end) == queries(i) && keys(end) == keys(i);) ++end;
    const int64_t count = static_cast<int64_t>(end - i);
    const int64_t q = queries(i), k = keys(i), first_q = documents.queries[i], first_k = documents.keys[i];
    if (q == 0 || k == 0) {
      result.queries_alone.push_back({first_q, q, count * q});
      result.keys_alone.push_back({first_k, k, count * k});
    } else if (!documents.causal) {
      result.calls.push_back({count, {first_q, q, q}, {first_k, k, k}, false, false});
    } else {
      const int64_t square = std::min(q, k), before = k - square, unseeing = q - square;
      result.calls.push_back({count, {first_q + unseeing, q, square}, {first_k + before, k, square}, true, false});
      if (before > 0) result.calls.push_back({count, {first_q, q, q}, {first_k, k, before}, false, true});
      for (int64_t c = 0; unseeing > 0 && c < count; ++c)
        result.queries_alone.push_back({first_q + c * q, q, unseeing});
    }
  }
  return result;
}

// Rows of x [rows, heads, dim] or [rows, heads] as tiles.
at::Tensor view(const at::Tensor& x, int64_t count, const Rows& rows) {
  const std::array<int64_t, 4> sizes{count, rows.rows, x.size(1), x.dim() == 3 ? x.size(2) : 1};
  const std::array<int64_t, 4> strides{rows.step * x.stride(0), x.stride(0), x.stride(1), 1};
  const auto dims = static_cast<size_t>(x.dim() + 1);
  return run::make_view(x, x.dtype(), at::IntArrayRef(sizes.data(), dims), at::IntArrayRef(strides.data(), dims),
                        x.storage_offset() + rows.first * x.stride(0));
}

void count_pairs(const run::KernelCall& call, std::atomic<int64_t>* total) {
  const int64_t rows = call.query.size(1), keys = call.key.size(1);
  const int64_t seen = call.kind == plan::TileKind::causal ? rows * (rows + 1) / 2 : rows * keys;
  *total += call.query.size(0) * call.query.size(2) * seen;
}

run::KernelCall call_of(const Piece& piece, const Operands& x) {
  run::KernelCall call;
  call.kind = piece.causal ? plan::TileKind::causal : plan::TileKind::full;
  call.query = view(x.query, piece.count, piece.query);
  call.key = view(x.key, piece.count, piece.key);
  call.value = view(x.value, piece.count, piece.key);
  call.output = view(x.output, piece.count, piece.query);
  call.lse = view(x.lse, piece.count, piece.query);
  return call;
}

at::Tensor empty_rows(const at::Tensor& like) { return at::empty(like.sizes(), like.options()); }

run::KernelCall tiles_call(const Operands& x, bool causal) {
  run::KernelCall call;
  call.kind = causal ? plan::TileKind::causal : plan::TileKind::full;
  call.query = x.query;
  call.key = x.key;
  call.value = x.value;
  call.output = x.output;
  call.lse = x.lse;
  return call;
}

}  // namespace

void attend(const Documents& documents, const Operands& x) {
  const Pieces pieces = pieces_of(documents);
  std::vector<run::KernelCall> calls;
  struct Partial {
    at::Tensor output, lse;
    size_t call;
  };
  std::vector<Partial> partials;
  for (const Piece& piece : pieces.calls) {
    run::KernelCall& call = calls.emplace_back(call_of(piece, x));
    count_pairs(call, &forward_pairs);
    if (!piece.added) continue;
    partials.push_back({call.output, call.lse, calls.size() - 1});
    call.output = empty_rows(call.output);
    call.lse = empty_rows(call.lse);
  }
  run::attend(calls);
  for (const Partial& p : partials) run::merge_partials(p.output, p.lse, calls[p.call].output, calls[p.call].lse);
  for (const Rows& rows : pieces.queries_alone) {
    view(x.output, 1, rows).zero_();
    view(x.lse, 1, rows).fill_(-std::numeric_limits<double>::infinity());
  }
}

void attend_gradient(const Documents& documents, const Operands& x, const Gradients& gradients) {
  const Pieces pieces = pieces_of(documents);
  std::vector<run::KernelCall> calls;
  std::vector<std::pair<at::Tensor, size_t>> partials;
  for (const Piece& piece : pieces.calls) {
    run::KernelCall& call = calls.emplace_back(call_of(piece, x));
    count_pairs(call, &backward_pairs);
    call.grad_output = view(gradients.output, piece.count, piece.query);
    call.grad_query = view(gradients.query, piece.count, piece.query);
    call.grad_key = view(gradients.key, piece.count, piece.key);
    call.grad_value = view(gradients.value, piece.count, piece.key);
    if (!piece.added) continue;
    partials.emplace_back(call.grad_query, calls.size() - 1);
    call.grad_query = empty_rows(call.grad_query);
  }
  run::attend_gradient(calls);
  for (const auto& [total, call] : partials) total.add_(calls[call].grad_query);
  for (const Rows& rows : pieces.queries_alone) view(gradients.query, 1, rows).zero_();
  for (const Rows& rows : pieces.keys_alone) {
    view(gradients.key, 1, rows).zero_();
    view(gradients.value, 1, rows).zero_();
  }
}

void attend_tiles(const Operands& x, bool causal) {
  const run::KernelCall call = tiles_call(x, causal);
  count_pairs(call, &forward_pairs);
  run::attend({call});
}

void attend_tiles_gradient(const Operands& x, const Gradients& gradients, bool causal) {
  run::KernelCall call = tiles_call(x, causal);
  count_pairs(call, &backward_pairs);
  call.grad_output = gradients.output;
  call.grad_query = gradients.query;
  call.grad_key = gradients.key;
  call.grad_value = gradients.value;
  run::attend_gradient({call});
}

Pairs pairs() { return {forward_pairs, backward_pairs}; }
void set_pairs(const Pairs& pairs) {
  forward_pairs = pairs.forward;
  backward_pairs = pairs.backward;
}

}  // namespace evenspan::bench
