// Short convolutions: the rows before each span are fetched, and the taps are sums of shifted rows.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "evenspan/plan/halo.h"
#include "evenspan/run/linear.h"
#include "run/entry.h"

namespace evenspan::run {
namespace {

using plan::HaloMove;
using plan::HaloSpan;

// Sends rows of one tensor along the moves, or back, with one message for each pair of ranks. `take(move, rows)` gets
// what arrives, in the order of the moves, and what stays on the rank.
template <class RowsOf, class Take>
void exchange_rows(const std::vector<HaloMove>& moves, bool back, const comm::Communicator& communicator,
                   const std::string& operation, const at::Tensor& like, RowsOf&& rows_of, Take&& take) {
  const auto sender = [back](const HaloMove& m) { return back ? m.to : m.from; };
  const auto receiver = [back](const HaloMove& m) { return back ? m.from : m.to; };
  const Rank own = communicator.rank();
  std::vector<comm::Transfer> sends, receives;
  for (Rank peer(0); peer < communicator.size(); ++peer.value) {
    if (peer == own) continue;
    std::vector<at::Tensor> parts;
    int64_t incoming = 0;
    for (const HaloMove& move : moves) {
      if (sender(move) == own && receiver(move) == peer) parts.push_back(rows_of(move));
      if (sender(move) == peer && receiver(move) == own) incoming += move.num_rows;
    }
    if (!parts.empty()) sends.push_back({peer, at::cat(parts, 0)});
    if (incoming > 0) receives.push_back({peer, at::empty({incoming, like.size(1)}, like.options())});
  }
  std::vector<comm::Transfer> arrived = receives;
  communicator.exchange(std::move(sends), std::move(receives), operation)->wait();
  std::vector<int64_t> taken(arrived.size(), 0);
  for (const HaloMove& move : moves) {
    if (receiver(move) != own) continue;
    if (sender(move) == own) {
      take(move, rows_of(move));
      continue;
    }
    size_t from = 0;
    while (arrived[from].peer != sender(move)) ++from;
    take(move, arrived[from].data.narrow(0, taken[from], move.num_rows));
    taken[from] += move.num_rows;
  }
}

struct Layer : torch::CustomClassHolder {
  std::shared_ptr<Executable::Entry> entry;  // keeps the halos
  const plan::Halos* halos = nullptr;
  std::string kind;
};

// x [rows, channels] -> [padded rows, channels].
struct HaloFunction : torch::autograd::Function<HaloFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const c10::intrusive_ptr<Layer>& layer) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    context->saved_data["layer"] = c10::IValue::make_capsule(layer);
    const plan::Halos& halos = *layer->halos;
    const at::Tensor padded = at::zeros({halos.num_padded_rows, x.size(1)}, x.options());
    for (const HaloSpan& span : halos.spans) {
      padded.narrow(0, span.padded_row, span.num_rows).copy_(x.narrow(0, span.home_row, span.num_rows));
    }
    layer->entry->call("short convolution forward", layer->kind, [&] {
      exchange_rows(
          halos.moves, false, layer->entry->communicator(), "short convolution forward", x,
          [&](const HaloMove& move) { return x.narrow(0, move.home_row, move.num_rows); },
          [&](const HaloMove& move, const at::Tensor& rows) {
            padded.narrow(0, move.padded_row, move.num_rows).copy_(rows);
          });
    });
    return padded;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const auto capsule = context->saved_data["layer"].toCapsule();
    const auto* layer = static_cast<const Layer*>(capsule.get());
    return {gradient(*layer, gradients[0]), at::Tensor()};
  }

 private:
  static at::Tensor gradient(const Layer& layer, const at::Tensor& padded) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    const plan::Halos& halos = *layer.halos;
    int64_t num_rows = 0;
    for (const HaloSpan& span : halos.spans) num_rows += span.num_rows;
    const at::Tensor grad = at::empty({num_rows, padded.size(1)}, padded.options());
    for (const HaloSpan& span : halos.spans) {
      grad.narrow(0, span.home_row, span.num_rows).copy_(padded.narrow(0, span.padded_row, span.num_rows));
    }
    layer.entry->call("short convolution backward", layer.kind, [&] {
      exchange_rows(
          halos.moves, true, layer.entry->communicator(), "short convolution backward", padded,
          [&](const HaloMove& move) { return padded.narrow(0, move.padded_row, move.num_rows); },
          [&](const HaloMove& move, const at::Tensor& rows) {
            grad.narrow(0, move.home_row, move.num_rows).add_(rows);
          });
    });
    return grad;
  }
};

void check(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const Executable::Entry& entry) {
  const int64_t rows = entry.plan().placement.num_tokens(entry.communicator().rank());
  if (!x.defined() || x.dim() != 2 || x.size(0) != rows || x.size(1) < 1) {
    fail_invalid("[short_convolution] x has shape ", x.defined() ? join_text(x.sizes()) : "undefined", "; rank ",
                 entry.communicator().rank(), " of the plan has ", rows, " rows: [rows, channels]");
  }
  if (!weight.defined() || weight.dim() != 2 || weight.size(0) != x.size(1) || weight.size(1) < 1 ||
      (bias.defined() && (bias.dim() != 1 || bias.size(0) != x.size(1)))) {
    fail_invalid("[short_convolution] weight has shape ", weight.defined() ? join_text(weight.sizes()) : "undefined",
                 bias.defined() ? join_text(" and bias ", bias.sizes()) : "", "; for ", x.size(1),
                 " channels they are [channels, width] and [channels]");
  }
  for (const at::Tensor* other : {&weight, &bias}) {
    if (other->defined() && (other->scalar_type() != x.scalar_type() || other->device() != x.device())) {
      fail_invalid("[short_convolution] x is ", x.scalar_type(), " on ", x.device(), ", a parameter ",
                   other->scalar_type(), " on ", other->device(), "; convert one of them");
    }
  }
}

}  // namespace

at::Tensor short_convolution(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                             const Executable& executable) {
  const auto& entry = executable.entry();
  entry->check("short convolution", [&] { check(x, weight, bias, *entry); });
  const int64_t width = weight.size(1);
  auto layer = c10::make_intrusive<Layer>();
  layer->entry = entry;
  layer->kind = join_text(", width ", width, ", ", x.size(1), " channels");
  layer->halos = &entry->halos(static_cast<int32_t>(width));
  const at::Tensor padded = HaloFunction::apply(x, layer);
  // Row j of `sums` is the output at padded row j + width - 1.
  const int64_t num_sums = std::max<int64_t>(0, padded.size(0) - (width - 1));
  at::Tensor sums = padded.narrow(0, 0, num_sums) * weight.select(1, 0);
  for (int64_t i = 1; i < width && num_sums > 0; ++i) sums = sums + padded.narrow(0, i, num_sums) * weight.select(1, i);
  std::vector<at::Tensor> spans;
  for (const HaloSpan& span : layer->halos->spans) {
    spans.push_back(sums.narrow(0, span.padded_row - (width - 1), span.num_rows));
  }
  const at::Tensor y = spans.empty() ? sums.narrow(0, 0, 0) : at::cat(spans, 0);
  return bias.defined() ? y + bias : y;
}

}  // namespace evenspan::run
