#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <chrono>

#include "bindings/bindings.h"
#include "bindings/errors.h"
#include "bindings/plan_handle.h"
#include "evenspan/comm/communicator.h"
#include "evenspan/run/executable.h"

namespace evenspan::python {
namespace {

// Frees its backend without the interpreter's lock, whoever drops it last: a process group then joins threads of its
// own, and these want the lock to let go of tensors.
comm::Communicator freed_without_lock(comm::Communicator made) {
  comm::Backend* backend = made.backend().get();
  const auto release = [held = std::move(made)](comm::Backend*) mutable {
    std::optional<py::gil_scoped_release> unlocked;
    if (PyGILState_Check()) unlocked.emplace();
    held = {};
  };
  return comm::Communicator(std::shared_ptr<comm::Backend>(backend, release));
}

}  // namespace

void bind_run(py::module_& m) {
  py::class_<comm::Communicator>(m, "Communicator")
      .def(py::init([](const std::optional<std::string>& group_name, double timeout) {
             comm::CommunicatorOptions options;
             options.timeout = std::chrono::milliseconds(static_cast<int64_t>(timeout * 1000));
             if (group_name) return freed_without_lock(comm::make_c10d_communicator(*group_name, options));
             return comm::make_threads_communicators(1, options).front();
           }),
           Unlocked(), py::arg("group_name"), py::arg("timeout"))
      .def_property_readonly("rank", [](const comm::Communicator& c) { return c.rank().value; })
      .def_property_readonly("size", &comm::Communicator::size)
      .def(
          "all_gather", [](const comm::Communicator& c, const at::Tensor& t) { return comm::all_gather(c, t); },
          Unlocked(), py::arg("tensor"))
      .def(
          "all_reduce", [](const comm::Communicator& c, const at::Tensor& t) { return comm::all_reduce(c, t); },
          Unlocked(), py::arg("tensor"))
      .def_property_readonly("call_hash", &comm::Communicator::call_hash)
      .def(
          "compare",
          [](const comm::Communicator& c, const std::vector<std::pair<std::string, uint64_t>>& parts,
             const std::string& operation, const std::string& things, const std::string& remedy,
             const std::string& device) {
            std::vector<comm::ComparedValue> all;
            for (const auto& [name, value] : parts) all.push_back({name, value});
            comm::compare(c, all, {operation, things, remedy, at::Device(device)});
          },
          Unlocked(), py::arg("parts"), py::kw_only(), py::arg("operation"), py::arg("things"), py::arg("remedy"),
          py::arg("device") = "cpu")
      .def("refuse", &comm::Communicator::refuse, Unlocked(), py::arg("operation"), py::arg("reason"))
      .def("abort", &comm::Communicator::abort, Unlocked(), py::arg("operation"), py::arg("reason"));
  py::class_<run::Executable>(m, "Executable")
      .def(py::init([](const PlanHandle& plan, const comm::Communicator& communicator, const std::string& device) {
             return run::Executable(plan.plan, communicator, at::Device(device), throw_to_python);
           }),
           Unlocked(), py::arg("plan"), py::arg("communicator"), py::arg("device"))
      .def_property_readonly("handle", &run::Executable::handle)
      .def_property_readonly("rank", [](const run::Executable& e) { return e.rank().value; })
      .def_property_readonly("num_tokens", &run::Executable::num_tokens);
  m.def("attention", &run::attention, Unlocked(), py::arg("query"), py::arg("key"), py::arg("value"),
        py::arg("executable"));
}

}  // namespace evenspan::python
