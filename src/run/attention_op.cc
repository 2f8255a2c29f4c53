// The attention operators of torch's dispatcher: evenspan::attention is differentiable and made of attention_forward
// and attention_backward, which compilers see.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "run/second_derivatives.h"
#include "run/table.h"

namespace evenspan::run {
namespace {

using Pair = std::tuple<at::Tensor, at::Tensor>;
using Triple = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

Pair forward(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const at::Tensor& executable) {
  auto [output, saved] = find_entry(executable)->forward(query, key, value);
  return {output, saved};
}

Triple backward(const at::Tensor& grad_output, const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                const at::Tensor& output, const at::Tensor& saved, const at::Tensor& executable) {
  auto gradients = find_entry(executable)->backward(grad_output, query, key, value, output, saved);
  return {gradients.query, gradients.key, gradients.value};
}

Pair forward_meta(const at::Tensor& query, const at::Tensor&, const at::Tensor&, const at::Tensor& executable) {
  return {at::empty_symint(query.sym_sizes(), query.options()), at::empty_like(executable)};
}

Triple backward_meta(const at::Tensor&, const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     const at::Tensor&, const at::Tensor&, const at::Tensor&) {
  return {at::empty_symint(query.sym_sizes(), query.options()), at::empty_symint(key.sym_sizes(), key.options()),
          at::empty_symint(value.sym_sizes(), value.options())};
}

Pair call_forward(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                  const at::Tensor& executable) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("evenspan::attention_forward", "").typed<decltype(forward)>();
  return op.call(query, key, value, executable);
}

struct AttentionFunction : torch::autograd::Function<AttentionFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& query, const at::Tensor& key,
                            const at::Tensor& value, const at::Tensor& executable) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto [output, saved] = call_forward(query, key, value, executable);
    context->save_for_backward({query, key, value, output, saved, executable});
    return output;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("evenspan::attention_backward", "")
                               .typed<decltype(run::backward)>();
    const auto saved = context->get_saved_variables();
    const auto [query, key, value] = [&] {
      const at::AutoDispatchBelowADInplaceOrView guard;
      return op.call(gradients[0], saved[0], saved[1], saved[2], saved[3], saved[4], saved[5]);
    }();
    if (!c10::GradMode::is_enabled()) return {query, key, value, at::Tensor()};
    return differentiable_once({query, key, value, at::Tensor()}, gradients, find_entry(saved[5]), "attention");
  }
};

at::Tensor attention_autograd(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                              const at::Tensor& executable) {
  return AttentionFunction::apply(query, key, value, executable);
}

at::Tensor attention_forward_only(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                                  const at::Tensor& executable) {
  return std::get<0>(call_forward(query, key, value, executable));
}

TORCH_LIBRARY(evenspan, m) {
  m.def("attention(Tensor query, Tensor key, Tensor value, Tensor executable) -> Tensor");
  m.def("attention_forward(Tensor query, Tensor key, Tensor value, Tensor executable) -> (Tensor, Tensor)");
  m.def(
      "attention_backward(Tensor grad_output, Tensor query, Tensor key, Tensor value, Tensor output, Tensor saved, "
      "Tensor executable) -> (Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(evenspan, CompositeExplicitAutograd, m) {
  m.impl("attention", attention_forward_only);
  m.impl("attention_forward", forward);
  m.impl("attention_backward", backward);
}

TORCH_LIBRARY_IMPL(evenspan, Meta, m) {
  m.impl("attention_forward", forward_meta);
  m.impl("attention_backward", backward_meta);
}

TORCH_LIBRARY_IMPL(evenspan, Autograd, m) { m.impl("attention", attention_autograd); }

}  // namespace

at::Tensor attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     const Executable& executable) {
  return AttentionFunction::apply(query, key, value, executable.handle());
}

}  // namespace evenspan::run
