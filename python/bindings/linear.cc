#include "evenspan/run/linear.h"

#include <pybind11/functional.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "evenspan/plan/linear.h"

namespace evenspan::python {
namespace {

// A kernel made of a Python function of (query, key, value, gate, beta, scale, state) that returns output and state.
using PythonKernel = std::function<std::pair<at::Tensor, at::Tensor>(
    const at::Tensor&, const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
    const std::optional<at::Tensor>&, double, const at::Tensor&)>;

std::optional<at::Tensor> optional(const at::Tensor& x) { return x.defined() ? std::optional(x) : std::nullopt; }

std::pair<at::Tensor, std::optional<at::Tensor>> linear_attention(
    const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const std::optional<at::Tensor>& gate,
    const std::optional<at::Tensor>& beta, const std::optional<at::Tensor>& initial_state,
    const run::Executable& executable, const std::string& transport, int32_t state_blocks, double scale, bool normalize,
    bool final_state, const std::shared_ptr<run::SavedStates>& states, const std::optional<PythonKernel>& kernel) {
  run::LinearOptions options{transport, state_blocks, scale, normalize, final_state, states, nullptr};
  if (kernel) {
    options.kernel = run::make_function_kernel([f = *kernel](const run::LinearOperands& x, const at::Tensor& state) {
      return f(x.query, x.key, x.value, optional(x.gate), optional(x.beta), x.scale, state);
    });
  }
  const at::Tensor none;
  const auto result = run::linear_attention(
      {query, key, value, gate.value_or(none), beta.value_or(none), initial_state.value_or(none)}, executable, options);
  return {result.output, optional(result.final_state)};
}

}  // namespace

void bind_linear(py::module_& m) {
  py::class_<run::SavedStates, std::shared_ptr<run::SavedStates>>(m, "SavedStates").def(py::init<>());
  m.def("linear_attention", linear_attention, Unlocked(), py::arg("query"), py::arg("key"), py::arg("value"),
        py::arg("gate"), py::arg("beta"), py::arg("initial_state"), py::arg("executable"), py::kw_only(),
        py::arg("transport"), py::arg("state_blocks"), py::arg("scale"), py::arg("normalize"), py::arg("final_state"),
        py::arg("states"), py::arg("kernel"));
  m.def(
      "short_convolution",
      [](const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
         const run::Executable& executable) {
        return run::short_convolution(x, weight, bias.value_or(at::Tensor()), executable);
      },
      Unlocked(), py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("executable"));
  m.def("transports", [] {
    std::vector<std::string> names;
    for (const auto& transport : plan::transports()) names.emplace_back(transport.name);
    return names;
  });
}

}  // namespace evenspan::python
