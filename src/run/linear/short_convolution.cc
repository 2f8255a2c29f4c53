// Short convolutions: the rows before each span are fetched, and the taps are sums of shifted rows. Rows are gathered
// for all spans at once, so that many short documents cost what their tokens do.
#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "evenspan/plan/halo.h"
#include "evenspan/run/linear.h"
#include "run/entry.h"
#include "run/second_derivatives.h"

namespace evenspan::run {
namespace {

using plan::HaloMove;
using plan::HaloSpan;
using Rows = std::vector<int64_t>;

void append_rows(int64_t first, int64_t count, Rows* rows) {
  for (int64_t row = first; row < first + count; ++row) rows->push_back(row);
}

at::Tensor index_of(const Rows& rows, const at::Tensor& of) { return at::tensor(rows, at::kLong).to(of.device()); }

at::Tensor gather(const at::Tensor& from, const Rows& rows) { return from.index_select(0, index_of(rows, from)); }

// [rows + 1, channels], the last row 0.
at::Tensor with_zeros(const at::Tensor& x) { return at::cat({x, at::zeros({1, x.size(1)}, x.options())}, 0); }

// The halos of a rank, row by row.
class HaloRows {
 public:
  HaloRows(const plan::Halos& halos, const comm::Communicator& communicator)
      : communicator_(communicator), at_home_(peers()), in_halo_(peers()) {
    for (const HaloSpan& span : halos.spans) append_rows(span.padded_row, span.num_rows, &own_);
    own_or_zeros_.assign(static_cast<size_t>(halos.num_padded_rows), num_rows());
    for (size_t row = 0; row < own_.size(); ++row) {
      own_or_zeros_[static_cast<size_t>(own_[row])] = static_cast<int64_t>(row);
    }
    const Rank own = communicator.rank();
    for (const HaloMove& move : halos.moves) {
      if (move.from == own) append_rows(move.home_row, move.num_rows, &at_home_[index(move.to)]);
      if (move.to == own) append_rows(move.padded_row, move.num_rows, &in_halo_[index(move.from)]);
    }
  }

  int64_t num_rows() const { return static_cast<int64_t>(own_.size()); }
  int64_t num_padded_rows() const { return static_cast<int64_t>(own_or_zeros_.size()); }
  // [row]: where it is in the tensor with halos.
  const Rows& own() const { return own_; }
  // [padded row]: the own row that it is, or num_rows() in halos.
  const Rows& own_or_zeros() const { return own_or_zeros_; }

  // x [rows, channels] -> [padded rows, channels].
  at::Tensor pad(const at::Tensor& x) const {
    const std::vector<at::Tensor> arrived = exchange(x, at_home_, in_halo_, "short convolution forward");
    std::vector<at::Tensor> parts{with_zeros(x)};
    Rows rows = own_or_zeros_;
    int64_t next = num_rows() + 1;  // what arrived lies behind the own rows and the zeros
    for (size_t peer = 0; peer < peers(); ++peer) {
      for (const int64_t row : in_halo_[peer]) rows[static_cast<size_t>(row)] = next++;
      if (!in_halo_[peer].empty()) parts.push_back(arrived[peer]);
    }
    return gather(at::cat(parts, 0), rows);
  }

  // The transpose: what halos got goes back to its home and is added there, rank by rank.
  at::Tensor unpad(const at::Tensor& padded) const {
    const std::vector<at::Tensor> arrived = exchange(padded, in_halo_, at_home_, "short convolution backward");
    at::Tensor x = gather(padded, own_);
    for (size_t peer = 0; peer < peers(); ++peer) {
      if (at_home_[peer].empty()) continue;
      x.index_put_({index_of(at_home_[peer], x)}, arrived[peer], /*accumulate=*/true);
    }
    return x;
  }

 private:
  static size_t index(Rank rank) { return static_cast<size_t>(rank.value); }
  size_t peers() const { return static_cast<size_t>(communicator_.size()); }

  // Sends rows of x, [peer], in a message for each peer, and returns what arrives from each, and what stays on the
  // rank.
  std::vector<at::Tensor> exchange(const at::Tensor& x, const std::vector<Rows>& sent,
                                   const std::vector<Rows>& received, const std::string& operation) const {
    std::vector<comm::Transfer> sends, receives;
    std::vector<at::Tensor> arrived(peers());
    for (size_t peer = 0; peer < peers(); ++peer) {
      const Rank rank(static_cast<int64_t>(peer));
      if (rank == communicator_.rank()) {
        arrived[peer] = gather(x, sent[peer]);
        continue;
      }
      if (!sent[peer].empty()) sends.push_back({rank, gather(x, sent[peer])});
      if (received[peer].empty()) continue;
      arrived[peer] = at::empty({static_cast<int64_t>(received[peer].size()), x.size(1)}, x.options());
      receives.push_back({rank, arrived[peer]});
    }
    communicator_.exchange(std::move(sends), std::move(receives), operation)->wait();
    return arrived;
  }

  comm::Communicator communicator_;
  Rows own_, own_or_zeros_;
  std::vector<Rows> at_home_, in_halo_;  // [peer]: rows of moves to it, and from it; itself among them
};

struct ConvolutionLayer : torch::CustomClassHolder {
  ConvolutionLayer(std::shared_ptr<Executable::Entry> of, int64_t taps, int64_t channels)
      : entry(std::move(of)),
        width(taps),
        kind(join_text(", width ", taps, ", ", channels, " channels")),
        rows(entry->halos(static_cast<int32_t>(taps)), entry->communicator()) {}

  // Row j of the sums is the output at padded row j + width - 1.
  int64_t num_sums() const { return std::max<int64_t>(0, rows.num_padded_rows() - (width - 1)); }

  std::shared_ptr<Executable::Entry> entry;
  int64_t width;
  std::string kind;  // what ranks must agree on
  HaloRows rows;
};

// x [rows, channels], weight [channels, width] -> [rows, channels].
struct ConvolutionFunction : torch::autograd::Function<ConvolutionFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const c10::intrusive_ptr<ConvolutionLayer>& layer) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    const at::Tensor padded =
        layer->entry->call("short convolution forward", layer->kind, [&] { return layer->rows.pad(x); });
    context->save_for_backward({padded, weight});
    context->saved_data["layer"] = c10::IValue::make_capsule(layer);
    const int64_t num_sums = layer->num_sums();
    const at::Tensor sums = padded.narrow(0, 0, num_sums) * weight.select(1, 0);
    for (int64_t i = 1; i < layer->width && num_sums > 0; ++i) {
      sums.addcmul_(padded.narrow(0, i, num_sums), weight.select(1, i));
    }
    Rows rows = layer->rows.own();
    for (int64_t& row : rows) row -= layer->width - 1;
    return gather(sums, rows);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const auto capsule = context->saved_data["layer"].toCapsule();
    const auto* layer = static_cast<const ConvolutionLayer*>(capsule.get());
    return differentiable_once(gradients_of(*context, *layer, gradients[0]), gradients, layer->entry,
                               "short_convolution");
  }

 private:
  static torch::autograd::variable_list gradients_of(const torch::autograd::AutogradContext& context,
                                                     const ConvolutionLayer& layer, const at::Tensor& grad_output) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    const auto saved = context.get_saved_variables();
    const at::Tensor &padded = saved[0], &weight = saved[1];
    const int64_t num_sums = layer.num_sums();
    const Rows& all = layer.rows.own_or_zeros();
    const at::Tensor sums = gather(with_zeros(grad_output), Rows(all.end() - num_sums, all.end()));
    at::Tensor grad_x, grad_weight;
    if (context.needs_input_grad(1)) {
      grad_weight = at::zeros(weight.sizes(), weight.options());
      for (int64_t i = 0; i < layer.width && num_sums > 0; ++i) {
        grad_weight.select(1, i).copy_((padded.narrow(0, i, num_sums) * sums).sum(0));
      }
    }
    if (context.needs_input_grad(0)) {
      const at::Tensor grad_padded = at::zeros(padded.sizes(), padded.options());
      for (int64_t i = 0; i < layer.width && num_sums > 0; ++i) {
        grad_padded.narrow(0, i, num_sums).addcmul_(sums, weight.select(1, i));
      }
      grad_x =
          layer.entry->call("short convolution backward", layer.kind, [&] { return layer.rows.unpad(grad_padded); });
    }
    return {grad_x, grad_weight, at::Tensor()};
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
  for (const at::Tensor* each : {&x, &weight, &bias}) {
    if (each->defined() && each->layout() != at::kStrided) {
      fail_invalid("[short_convolution] a tensor has the layout ", each->layout(), "; give dense tensors");
    }
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
  const at::Tensor y =
      ConvolutionFunction::apply(x, weight, c10::make_intrusive<ConvolutionLayer>(entry, weight.size(1), x.size(1)));
  return bias.defined() ? y + bias : y;
}

}  // namespace evenspan::run
