// evenspan_peers_kernel: the executor's attention kernels for the stand-in of flash_attn, and the ideal beside it.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <cmath>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "documents.h"
#include "evenspan/core/error.h"

namespace evenspan::bench {
namespace {

namespace py = pybind11;
using Unlocked = py::call_guard<py::gil_scoped_release>;

std::vector<int64_t> bounds(const char* name, const at::Tensor& cu_seqlens, int64_t rows) {
  if (cu_seqlens.dim() != 1 || cu_seqlens.numel() < 1) fail_invalid("[kernel] ", name, " must be [documents + 1]");
  const at::Tensor own = cu_seqlens.cpu().to(at::kLong).contiguous();
  std::vector<int64_t> result(own.const_data_ptr<int64_t>(), own.const_data_ptr<int64_t>() + own.numel());
  int64_t last = 0;
  for (const int64_t bound : result) {
    if (bound < last) fail_invalid("[kernel] ", name, " must ascend, ", bound, " follows ", last);
    last = bound;
  }
  if (result.front() != 0 || last != rows) {
    fail_invalid("[kernel] ", name, " must go from 0 to the ", rows, " rows, it goes from ", result.front(), " to ",
                 last);
  }
  return result;
}

void check(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, double scale) {
  const int64_t dim = query.size(-1);
  if (std::abs(scale * std::sqrt(static_cast<double>(dim)) - 1) > 1e-6) {
    fail_invalid("[kernel] scores are scaled by head_dim^-1/2, the scale is ", scale, " for ", dim);
  }
  if (key.sizes() != value.sizes() || key.size(-1) != dim || query.size(-2) % key.size(-2) != 0) {
    fail_invalid("[kernel] query ", join_text(query.sizes()), ", key ", join_text(key.sizes()), " and value ",
                 join_text(value.sizes()), " do not fit");
  }
}

at::Tensor dense_last(const at::Tensor& x) { return x.stride(-1) == 1 ? x : x.contiguous(); }

at::ScalarType lse_type(const at::Tensor& query) {
  return query.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// The gradients must be views of what the caller gave, so these are not copied.
Gradients results(const at::Tensor& grad_output, const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv) {
  for (const at::Tensor& x : {dq, dk, dv}) {
    if (x.stride(-1) != 1) fail_invalid("[kernel] the last dimension of the gradients must be dense");
  }
  return {dense_last(grad_output), dq, dk, dv};
}

// q [rows, heads, dim]; k, v [keys, kv_heads, dim] -> out like q, lse [heads, rows].
std::tuple<at::Tensor, at::Tensor> varlen_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                  const at::Tensor& cu_q, const at::Tensor& cu_k, double scale,
                                                  bool causal) {
  const at::AutoDispatchBelowADInplaceOrView guard;
  check(q, k, v, scale);
  const at::Tensor out = at::empty(q.sizes(), q.options());
  const at::Tensor lse = at::empty({q.size(1), q.size(0)}, q.options().dtype(lse_type(q)));
  attend({bounds("cu_seqlens_q", cu_q, q.size(0)), bounds("cu_seqlens_k", cu_k, k.size(0)), causal},
         {dense_last(q), dense_last(k), dense_last(v), out, lse.t()});
  return {out, lse};
}

void varlen_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const at::Tensor& out, const at::Tensor& lse, const at::Tensor& dq, const at::Tensor& dk,
                     const at::Tensor& dv, const at::Tensor& cu_q, const at::Tensor& cu_k, double scale, bool causal) {
  const at::AutoDispatchBelowADInplaceOrView guard;
  check(q, k, v, scale);
  attend_gradient({bounds("cu_seqlens_q", cu_q, q.size(0)), bounds("cu_seqlens_k", cu_k, k.size(0)), causal},
                  {dense_last(q), dense_last(k), dense_last(v), dense_last(out), lse.to(lse_type(q)).t()},
                  results(dout, dq, dk, dv));
}

// Runs `body` on tiles as they are where the kernel takes them, and else as documents of one length: a causal call with
// other keys than queries, or without either.
template <class Tiles, class Varlen>
void by_shape(const at::Tensor& q, const at::Tensor& k, bool causal, Tiles&& tiles, Varlen&& documents) {
  const int64_t rows = q.size(1), keys = k.size(1);
  if (q.size(0) > 0 && rows > 0 && keys > 0 && (!causal || rows == keys)) return tiles();
  for (int64_t b = 0; b < q.size(0); ++b) documents(b, Documents{{0, rows}, {0, keys}, causal});
}

// q [batch, rows, heads, dim]; k, v [batch, keys, kv_heads, dim] -> out like q, lse [batch, heads, rows].
std::tuple<at::Tensor, at::Tensor> forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale,
                                           bool causal) {
  const at::AutoDispatchBelowADInplaceOrView guard;
  check(q, k, v, scale);
  const at::Tensor out = at::empty(q.sizes(), q.options());
  const at::Tensor lse = at::empty({q.size(0), q.size(2), q.size(1)}, q.options().dtype(lse_type(q)));
  const Operands x{dense_last(q), dense_last(k), dense_last(v), out, lse.transpose(1, 2)};
  by_shape(
      q, k, causal, [&] { attend_tiles(x, causal); },
      [&](int64_t b, const Documents& one) {
        attend(one, {x.query[b], x.key[b], x.value[b], x.output[b], x.lse[b]});
      });
  return {out, lse};
}

void backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
              const at::Tensor& out, const at::Tensor& lse, const at::Tensor& dq, const at::Tensor& dk,
              const at::Tensor& dv, double scale, bool causal) {
  const at::AutoDispatchBelowADInplaceOrView guard;
  check(q, k, v, scale);
  const Operands x{dense_last(q), dense_last(k), dense_last(v), dense_last(out), lse.to(lse_type(q)).transpose(1, 2)};
  const Gradients g = results(dout, dq, dk, dv);
  by_shape(
      q, k, causal, [&] { attend_tiles_gradient(x, g, causal); },
      [&](int64_t b, const Documents& one) {
        attend_gradient(one, {x.query[b], x.key[b], x.value[b], x.output[b], x.lse[b]},
                        {g.output[b], g.query[b], g.key[b], g.value[b]});
      });
}

// Forward and backward of whole documents on this process alone: out, dq, dk, dv. Pairs are not counted.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> direct(const std::vector<int64_t>& lengths,
                                                                  const at::Tensor& q, const at::Tensor& k,
                                                                  const at::Tensor& v, const at::Tensor& grad_out) {
  const at::AutoDispatchBelowADInplaceOrView guard;
  check(q, k, v, 1 / std::sqrt(static_cast<double>(q.size(-1))));
  std::vector<int64_t> cuts{0};
  for (const int64_t length : lengths) cuts.push_back(cuts.back() + length);
  if (cuts.back() != q.size(0))
    fail_invalid("[kernel] lengths add up to ", cuts.back(), ", q has ", q.size(0), " rows");
  const Documents documents{cuts, cuts, true};
  const auto like = [](const at::Tensor& x) { return at::empty(x.sizes(), x.options()); };
  const at::Tensor lse = at::empty({q.size(1), q.size(0)}, q.options().dtype(lse_type(q)));
  const Operands x{q, k, v, like(q), lse.t()};
  const Gradients g{grad_out, like(q), like(k), like(v)};
  const Pairs before = pairs();
  attend(documents, x);
  attend_gradient(documents, x, g);
  set_pairs(before);
  return {x.output, g.query, g.key, g.value};
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("varlen_forward", &varlen_forward, Unlocked(), py::arg("q"), py::arg("k"), py::arg("v"),
        py::arg("cu_seqlens_q"), py::arg("cu_seqlens_k"), py::arg("scale"), py::arg("causal"));
  m.def("varlen_backward", &varlen_backward, Unlocked(), py::arg("dout"), py::arg("q"), py::arg("k"), py::arg("v"),
        py::arg("out"), py::arg("lse"), py::arg("dq"), py::arg("dk"), py::arg("dv"), py::arg("cu_seqlens_q"),
        py::arg("cu_seqlens_k"), py::arg("scale"), py::arg("causal"));
  m.def("forward", &forward, Unlocked(), py::arg("q"), py::arg("k"), py::arg("v"), py::arg("scale"), py::arg("causal"));
  m.def("backward", &backward, Unlocked(), py::arg("dout"), py::arg("q"), py::arg("k"), py::arg("v"), py::arg("out"),
        py::arg("lse"), py::arg("dq"), py::arg("dk"), py::arg("dv"), py::arg("scale"), py::arg("causal"));
  m.def("direct", &direct, Unlocked(), py::arg("lengths"), py::arg("q"), py::arg("k"), py::arg("v"),
        py::arg("grad_out"));
  m.def("pairs", [] { return std::make_tuple(pairs().forward, pairs().backward); });
  m.def("reset_pairs", [] { set_pairs({}); });
}

}  // namespace evenspan::bench
