#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "evenspan/run/linear.h"
#include "run/entry.h"
#include "run/interpreter.h"
#include "run/second_derivatives.h"
#include "run/table.h"

namespace evenspan::run {
namespace {

using plan::AttentionShape;
using plan::Gate;

// What a call has beside its tensors, from forward to backward.
struct LinearCall : torch::CustomClassHolder {
  std::shared_ptr<Executable::Entry> entry;
  const Executable::Entry::LinearProgram* program = nullptr;
  double scale = 1;
  std::shared_ptr<const LinearKernel> kernel;
  std::shared_ptr<SavedStates> states;
};

void check_sizes(const char* name, const at::Tensor& tensor, at::IntArrayRef sizes, const char* what) {
  if (tensor.defined() && tensor.sizes() == sizes) return;
  fail_invalid("[linear_attention] ", name, " has shape ", tensor.defined() ? join_text(tensor.sizes()) : "undefined",
               "; it must be ", sizes, ": ", what);
}

void check_type(const char* name, const at::Tensor& tensor, at::ScalarType type, at::Device device) {
  if (tensor.layout() != at::kStrided) {
    fail_invalid("[linear_attention] ", name, " has the layout ", tensor.layout(), "; give a dense tensor");
  }
  if (tensor.scalar_type() != type) {
    fail_invalid("[linear_attention] ", name, " is ", tensor.scalar_type(), ", it must be ", type, "; convert it");
  }
  if (tensor.device() != device) {
    fail_invalid("[linear_attention] ", name, " is on ", tensor.device(), ", the executable on ", device,
                 "; move it or bind the plan to its device");
  }
}

// Of numbers that a layer computes with: `wrong` says which break the rule.
void check_numbers(const char* name, const at::Tensor& numbers, at::Tensor (*wrong)(const at::Tensor&),
                   const char* rule) {
  if (!numbers.is_floating_point()) {
    fail_invalid("[linear_attention] ", name, " is ", numbers.scalar_type(), "; give a floating type");
  }
  if (numbers.numel() == 0) return;
  const at::Tensor bad = wrong(numbers.detach());
  if (!bad.any().item<bool>()) return;
  const at::Tensor place = bad.nonzero()[0].cpu();
  fail_invalid("[linear_attention] ", name, " is ", numbers.detach().masked_select(bad)[0].item<double>(), " at ",
               at::IntArrayRef(place.const_data_ptr<int64_t>(), static_cast<size_t>(place.numel())), "; ", rule);
}

at::Tensor grows(const at::Tensor& gate) { return gate.le(0).logical_not(); }  // NaN as well
at::Tensor is_not_finite(const at::Tensor& beta) { return beta.isfinite().logical_not(); }

Gate gate_of(const LinearInput& input) {
  if (!input.gate.defined()) return Gate::none;
  return input.gate.dim() == 1 ? Gate::head : input.gate.dim() == 2 ? Gate::token : Gate::channel;
}

// Checks all that one rank can know.
AttentionShape shape_of(const LinearInput& input, const Executable::Entry& entry, const LinearOptions& options) {
  const plan::Plan& plan = entry.plan();
  const int64_t rows = plan.placement.num_tokens(entry.communicator().rank());
  const plan::ElementType element = plan.request.shape.element;
  const at::ScalarType type = scalar_type(element), wide = scalar_type(plan::accumulation_type(element));
  plan::check_recurrent(plan.request.documents, "linear_attention");
  if (!std::isfinite(options.scale)) {
    fail_invalid("[linear_attention] scale is ", options.scale, "; it must be finite, 0 chooses it");
  }
  const at::Tensor& q = input.query;
  if (!q.defined() || q.dim() != 3 || q.size(0) != rows || q.size(1) < 1 || q.size(2) < 1) {
    fail_invalid("[linear_attention] query has shape ", q.defined() ? join_text(q.sizes()) : "undefined", "; rank ",
                 entry.communicator().rank(), " of the plan has ", rows, " rows: [rows, heads, key dimension]");
  }
  const int64_t heads = q.size(1), key_dim = q.size(2);
  check_sizes("key", input.key, q.sizes(), "as query");
  const int64_t value_dim = input.value.defined() && input.value.dim() == 3 ? input.value.size(2) : 1;
  check_sizes("value", input.value, {rows, heads, value_dim}, "rows and heads of query, any value dimension");
  if (value_dim < 1) fail_invalid("[linear_attention] value has value dimension 0; it must be positive");
  const auto check_operand = [&](const char* name, const at::Tensor& x) { check_type(name, x, type, entry.device()); };
  check_operand("query", q);
  check_operand("key", input.key);
  check_operand("value", input.value);
  const at::Tensor& gate = input.gate;
  if (gate.defined()) {
    if (gate.dim() == 1) {
      check_sizes("gate", gate, {heads}, "a decay per head");
    } else if (gate.dim() == 2) {
      check_sizes("gate", gate, {rows, heads}, "a decay per row and head");
    } else {
      check_sizes("gate", gate, q.sizes(), "a decay per row, head and key dimension; or [heads], or [rows, heads]");
    }
    check_numbers(
        "gate", gate, grows,
        "gates are logarithms of decays, at most 0, since a decay above 1 makes the state grow without bound");
  }
  if (input.beta.defined()) {
    check_sizes("beta", input.beta, {rows, heads}, "a number per row and head");
    check_numbers("beta", input.beta, is_not_finite, "it must be finite, mend the layer that makes it");
    if (options.normalize) {
      fail_invalid(
          "[linear_attention] normalize divides by sums of decayed products, which a delta rule (beta) has not; "
          "leave out one of them");
    }
  }
  if (input.initial_state.defined()) {
    if (options.normalize) {
      fail_invalid(
          "[linear_attention] normalize has no initial state: it would need that of the divisor as well; append "
          "a column of ones to value and divide by the last column instead");
    }
    check_sizes("initial_state", input.initial_state, {plan.request.documents.size(), heads, key_dim, value_dim},
                "[documents, heads, key dimension, value dimension]");
    check_type("initial_state", input.initial_state, wide, entry.device());
  }
  if (options.states && options.final_state) {
    fail_invalid("[linear_attention] saved states are of calls without final states; leave out one of them");
  }
  if (options.normalize && options.final_state) {
    fail_invalid(
        "[linear_attention] normalize returns no final state; append a column of ones to value and divide by the "
        "last column instead");
  }
  AttentionShape shape{
      static_cast<int32_t>(heads), static_cast<int32_t>(heads), static_cast<int32_t>(key_dim), element, {}};
  shape.state = {static_cast<int32_t>(value_dim), gate_of(input), input.beta.defined(), input.initial_state.defined(),
                 options.final_state};
  plan::validate(shape, {options.transport, options.state_blocks});
  return shape;
}

LinearOperands operands_of(const LinearCall& layer, const at::Tensor& query, const at::Tensor& key,
                           const at::Tensor& value, const at::Tensor& gate, const at::Tensor& beta) {
  return {rows_contiguous(query), rows_contiguous(key), rows_contiguous(value), gate, beta, layer.scale};
}

using Optional = std::optional<at::Tensor>;  // torch takes no undefined inputs
Optional optional(const at::Tensor& x) { return x.defined() ? Optional(x) : std::nullopt; }

struct LinearFunction : torch::autograd::Function<LinearFunction> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context, const at::Tensor& query,
                                                const at::Tensor& key, const at::Tensor& value, const Optional& gate_in,
                                                const Optional& beta_in, const Optional& initial_in,
                                                const c10::intrusive_ptr<LinearCall>& layer) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    const at::Tensor gate = gate_in.value_or(at::Tensor()), beta = beta_in.value_or(at::Tensor()),
                     initial_state = initial_in.value_or(at::Tensor());
    auto result = layer->entry->call("linear attention forward", layer->program->kind, [&] {
      const at::Tensor known = layer->states ? layer->states->handle : at::Tensor();
      return layer->entry->linear_forward(operands_of(*layer, query, key, value, gate, beta), initial_state, known,
                                          *layer->program, *layer->kernel);
    });
    if (layer->states) layer->states->handle = result.saved;
    context->save_for_backward({query, key, value, gate, beta, initial_state, result.saved});
    context->saved_data["layer"] = c10::IValue::make_capsule(layer);
    torch::autograd::variable_list outputs{result.output};
    if (layer->program->shape.state.final) outputs.push_back(result.final_state);
    return outputs;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto capsule = context->saved_data["layer"].toCapsule();
    const auto* layer = static_cast<const LinearCall*>(capsule.get());
    const at::Tensor grad_final = layer->program->shape.state.final ? gradients[1].contiguous() : at::Tensor();
    auto result = layer->entry->call("linear attention backward", layer->program->kind, [&] {
      return layer->entry->linear_backward(operands_of(*layer, saved[0], saved[1], saved[2], saved[3], saved[4]),
                                           rows_contiguous(gradients[0]), grad_final, saved[5], saved[6],
                                           *layer->program, *layer->kernel);
    });
    auto& [query, key, value, gate, beta] = result.operands;
    return differentiable_once({query, key, value, gate, beta, result.initial_state, at::Tensor()}, gradients,
                               layer->entry, "linear_attention");
  }
};

// Divides by the last column of the values, whose sums are those of ones.
at::Tensor normalized(const at::Tensor& sums, const Executable::Entry& entry) {
  const int64_t width = sums.size(-1) - 1;
  const at::Tensor divisor = sums.narrow(-1, width, 1);
  entry.check("linear attention normalisation", [&] {
    const at::Tensor zero = divisor.detach().eq(0);
    if (!zero.any().item<bool>()) return;
    const at::Tensor place = zero.nonzero()[0];
    fail_invalid("[linear_attention] row ", place[0].item<int64_t>(), ", head ", place[1].item<int64_t>(),
                 " would be divided by 0: the query's products with all keys up to it add up to nothing; use a feature "
                 "map with positive values");
  });
  return sums.narrow(-1, 0, width) / divisor;
}

}  // namespace

LinearResult linear_attention(const LinearInput& input, const Executable& executable, const LinearOptions& options) {
  const auto& entry = executable.entry();
  AttentionShape shape = entry->check("linear attention", [&] { return shape_of(input, *entry, options); });
  if (options.normalize) ++shape.state.value_dim;
  auto layer = c10::make_intrusive<LinearCall>();
  layer->entry = entry;
  layer->program = &entry->linear_program(shape, {options.transport, options.state_blocks});
  layer->scale = options.scale != 0 ? options.scale : 1 / std::sqrt(static_cast<double>(input.query.size(2)));
  static const std::shared_ptr<const LinearKernel> kDefault = make_chunked_kernel();
  layer->kernel = options.kernel ? options.kernel : kDefault;
  layer->states = options.states;
  const at::ScalarType wide = scalar_type(plan::accumulation_type(shape.element));
  const auto widened = [wide](const at::Tensor& x) { return x.defined() ? x.to(wide).contiguous() : x; };
  at::Tensor value = input.value;
  if (options.normalize) {
    const at::Tensor ones = at::ones({value.size(0), value.size(1), 1}, value.options());
    value = at::cat({value, ones}, -1);
  }
  const at::Tensor initial = input.initial_state.defined() ? input.initial_state.contiguous() : input.initial_state;
  const auto outputs = LinearFunction::apply(input.query, input.key, value, optional(widened(input.gate)),
                                             optional(widened(input.beta)), optional(initial), layer);
  if (options.normalize) return {normalized(outputs[0], *entry), {}};
  return {outputs[0], options.final_state ? outputs[1] : at::Tensor()};
}

}  // namespace evenspan::run
